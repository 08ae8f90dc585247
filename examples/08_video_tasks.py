"""One video model, seven tasks: what is known of a clip goes in, the rest is made, faster. A picture of every task."""

import numpy as np
import torch
from PIL import Image

import outpace
from outpace.pipelines.pocket.moving_digits import known_clips
from outpace.pipelines.vdt import TASKS

pipe = outpace.load_pocket("vdt")
tasks = list(TASKS)
clips = known_clips(range(len(tasks)))  # (clips, frames, rows, columns, 3) in 0..1; use your own here


def make() -> tuple[np.ndarray, np.ndarray]:
    """A clip a task, each from its own noise, and what was asked for of it (1) or known (0)."""
    made = pipe(
        frames=clips,
        task=tasks,
        num_inference_steps=30,
        generator=[torch.Generator().manual_seed(seed) for seed in range(len(tasks))],
    )
    return made.frames, made.masks


plain, masks = make()
with outpace.accelerate(pipe, outpace.GatedTaylor()) as run:
    frames, _ = make()
print(run.summary())
print(f"PSNR to the plain clips: {-10 * np.log10(np.mean((plain - frames) ** 2)):.1f} dB")
known = np.broadcast_to(masks[..., None] == 0, frames.shape)
assert np.array_equal(frames[known], clips[known]), "what is known comes out bit for bit"

# A row a task: what was given (grey where nothing was), and what came out.
given = np.where(known, clips, 0.5)
rows = [np.concatenate([*one, np.ones((16, 4, 3)), *other], axis=1) for one, other in zip(given, frames, strict=True)]
gap = np.ones((3, rows[0].shape[1], 3))
sheet = np.concatenate([part for row in rows for part in (row, gap)][:-1])
Image.fromarray((sheet * 255).round().astype(np.uint8)).resize((sheet.shape[1] * 4, sheet.shape[0] * 4), 0).save(
    "video_tasks.png"
)
print(f"video_tasks.png: {', '.join(tasks)}")
