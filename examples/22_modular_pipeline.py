"""Accelerate a modular pipeline whose guider stops halfway; the trace names the branches as the guider does."""

from collections import Counter
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.guiders import ClassifierFreeGuidance
from diffusers.modular_pipelines import WanBlocks

import outpace
from outpace.accel.specimens import SPECIMENS

# What lies between text encoder and decoder, around a tiny random transformer: put your own components here.
blocks = WanBlocks()
blocks.sub_blocks.pop("text_encoder")
blocks.sub_blocks.pop("decode")
pipe = blocks.init_pipeline()
pipe.update_components(
    transformer=SPECIMENS["WanTransformer3DModel"].build(in_channels=16, out_channels=16),
    scheduler=FlowMatchEulerDiscreteScheduler(),
    guider=ClassifierFreeGuidance(guidance_scale=4.0, stop=0.5),
)
pipe.set_progress_bar_config(disable=True)
text = torch.randn(2, 1, 5, 16, generator=torch.Generator().manual_seed(0))


def clip() -> Any:
    seed = torch.Generator().manual_seed(7)
    asked = {"prompt_embeds": text[0], "negative_prompt_embeds": text[1], "num_inference_steps": 16}
    return pipe(**asked, height=32, width=32, num_frames=5, generator=seed, output="latents")


plain = clip()
with outpace.accelerate(pipe, speedup=1):
    assert torch.equal(clip(), plain), "1 changes nothing, bit for bit"

with outpace.accelerate(pipe, speedup=2) as run:
    clip()
print(run.summary())
print("calls:", dict(Counter(call.branch for call in run.trace.calls)))
print("forecast:", dict(Counter(call.branch for call in run.trace.calls if not call.computed[0])))
assert torch.equal(clip(), plain), "and leaves the pipeline as it was"
