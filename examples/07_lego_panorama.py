"""Bricks trained on 32 x 32 make canvases of any size; the image brick sits out the last steps. A picture of both."""

import numpy as np
import torch
from PIL import Image

import outpace
from outpace.pipelines.lego import skip_brick

pipe = outpace.load_pocket("lego")
STEPS = 20


def make(*digits: int, width: int = 32) -> np.ndarray:
    """Pictures side by side, each from always the same noise: (32, digits x width, 3) in 0..1."""
    pictures = pipe(
        list(digits),
        height=32,
        width=width,
        guidance_scale=3.0,
        num_inference_steps=STEPS,
        generator=[torch.Generator().manual_seed(digit) for digit in digits],
        output_type="np",
    ).images
    return np.concatenate(list(pictures), axis=1)


plain = make(0, 2, 3, 5, 8)
with outpace.accelerate(pipe, skip_brick(pipe, 0.4, steps=STEPS)) as run:
    skipped = make(0, 2, 3, 5, 8)
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
