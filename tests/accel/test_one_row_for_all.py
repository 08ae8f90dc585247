"""What a pipeline gives in one row for a whole batch, a single empty prompt say, where samples are decided apart."""

from __future__ import annotations

import torch
from closeness import assert_same_but_rounding

from outpace.accel import GatedTaylor, accelerate
from outpace.pipelines import load_pocket

PROMPTS = ["a red square on black", "a green circle right of a blue circle on black", "a blue circle on black"]


def test_one_negative_prompt_for_a_batch_of_which_some_samples_are_computed():
    pipe = load_pocket("flux")
    pipe.set_progress_bar_config(disable=True)

    def make(negative: str | list[str]):
        noise = [torch.Generator().manual_seed(seed) for seed in (1, 2, 3)]
        told = {"negative_prompt": negative, "true_cfg_scale": 4.0, "num_inference_steps": 14, "output_type": "np"}
        return pipe(PROMPTS, height=48, width=48, max_sequence_length=12, generator=noise, **told).images

    with accelerate(pipe, GatedTaylor(threshold=0.3)) as run:
        together = make("")
        mixed = [call for call in run.trace.calls if any(call.computed) and not all(call.computed)]
        apart = make([""] * len(PROMPTS))
    assert mixed, "samples have to be decided apart for this to show anything"
    assert_same_but_rounding(torch.as_tensor(together), torch.as_tensor(apart))
