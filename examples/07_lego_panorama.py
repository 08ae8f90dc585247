"""Bricks trained on 32 x 32 make canvases of any size; the image brick sits out the last steps. A picture of both."""

import numpy as np
import torch
from PIL import Image

import outpace
from outpace.pipelines.lego import skip_brick

pipe = outpace.load_pocket("lego")
STEPS = 20


def make(digit: int, height: int = 32, width: int = 32) -> np.ndarray:
    """A picture from always the same noise: (height, width, 3) in 0..1."""
    return pipe(
        [digit],
        height=height,
        width=width,
        guidance_scale=2.0,
        num_inference_steps=STEPS,
        generator=torch.Generator().manual_seed(digit),
        output_type="np",
    ).images[0]


digits = (0, 2, 3, 5, 8)
plain = np.concatenate([make(digit) for digit in digits], axis=1)
with outpace.accelerate(pipe, skip_brick(pipe, 0.4, steps=STEPS)) as run:
    skipped = np.concatenate([make(digit) for digit in digits], axis=1)
print(run.summary())
near = -10 * np.log10(np.mean((plain - skipped) ** 2))
print(f"PSNR without the image brick in the last 40 % of the steps: {near:.1f} dB")

# As trained; with the image brick left out of the last steps; and a canvas five times as wide as any in training.
panorama = make(3, width=plain.shape[1])
gap = np.ones((2, plain.shape[1], 3))
sheet = np.concatenate([plain, gap, skipped, gap, panorama])
picture = Image.fromarray((sheet * 255).round().astype(np.uint8))
picture.resize((picture.width * 5, picture.height * 5), Image.Resampling.NEAREST).save("lego_panorama.png")
print("lego_panorama.png: plain, with a brick skipped, and one canvas of 32 x 160")
