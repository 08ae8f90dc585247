"""Wrap a diffusers pipeline, use it as before, look at what happened, and have it back as it was."""

from pathlib import Path

import torch

import outpace

# Any diffusers pipeline around a transformer will do:
#   pipe = diffusers.FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev", torch_dtype=torch.bfloat16).to("cuda")
# A pocket pipeline is a real one too, only small, and needs no download.
pipe = outpace.load_pocket("dit")


def picture(digit: int):
    """The same noise every time, so that pictures differ only by what was accelerated."""
    noise = torch.Generator().manual_seed(7)
    return pipe(class_labels=[digit], generator=noise, num_inference_steps=50).images[0]


plain = picture(3)
with outpace.accelerate(pipe, outpace.GatedTaylor(threshold=0.1)) as run:
    fast = picture(3)
print(run.summary())

again = picture(3)
assert list(again.getdata()) == list(plain.getdata()), "after the block, the pipeline is exactly as it was"

folder = Path("out/examples")
folder.mkdir(parents=True, exist_ok=True)
for name, image in (("plain", plain), ("fast", fast)):
    image.resize((256, 256), 0).save(folder / f"wrapped-{name}.png")
print(f"Look at {folder}/wrapped-plain.png and {folder}/wrapped-fast.png")
