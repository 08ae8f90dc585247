"""What sparse attention brings where attention is long and learnt: the pocket of 4352 tokens, whole clips, 50 steps."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import torch

from outpace.accel import AdaSpa, GatedTaylor, Method, accelerate
from outpace.pipelines import POCKETS, load_pocket

pytestmark = pytest.mark.slow
STEPS = 50
POCKET = POCKETS["wan-long"]


@pytest.fixture(scope="module")
def pipe() -> Any:
    torch.set_num_threads(1)
    return load_pocket("wan-long")


def clip(pipe: Any, *methods: Method) -> tuple[np.ndarray, float, Any]:
    """A clip of a held-out prompt, the processor time it took, and the trace."""
    prompt = POCKET.prompts(1, "held_out")[0]
    generator = torch.Generator().manual_seed(7)
    call = {**POCKET.call, "num_inference_steps": STEPS, "output_type": "np", "generator": generator}
    if not methods:
        begin = time.process_time()
        made = pipe(prompt, **call).frames[0]
        return made, time.process_time() - begin, None
    with accelerate(pipe, *methods) as run:
        begin = time.process_time()
        made = pipe(prompt, **call).frames[0]
        return made, time.process_time() - begin, run.trace


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((a - b) ** 2)))


def test_recall_of_95_percent_saves_a_quarter_of_the_time(pipe: Any) -> None:
    clip(pipe, AdaSpa())  # warm
    sparse, spent, trace = clip(pipe, AdaSpa(recall=0.95))
    plain, before, _ = clip(pipe)
    _, after, _ = clip(pipe)
    ratio = spent / ((before + after) / 2)
    record, totals = trace.attention, trace.attention.totals()
    print(f"\n{ratio:.3f} of the dense time, PSNR {psnr(plain, sparse):.1f} dB\n{trace.summary()}")
    assert ratio <= 0.75
    assert totals["recall"] >= 0.95 and totals["least_recall"] >= 0.95 - 1e-6
    assert psnr(plain, sparse) > 20  # the same clip, not another one

    # What searching costs, against the dense attention that it saves.
    replaced = record.seconds["dense"] / record.clocked["dense"] * record.calls["sparse"]
    print(f"searching took {record.seconds['mass'] / replaced:.1%} of the dense attention it replaced")
    assert record.seconds["mass"] < 0.15 * replaced
    assert totals["index_bytes"] < 1e6


def test_with_a_forecast_it_is_faster_than_either(pipe: Any) -> None:
    plain, _, _ = clip(pipe)
    took, quality = {}, {}
    for name, methods in {
        "gated": (GatedTaylor(threshold=0.1),),
        "sparse": (AdaSpa(recall=0.95),),
        "both": (GatedTaylor(threshold=0.1), AdaSpa(recall=0.95)),
    }.items():
        made, took[name], trace = clip(pipe, *methods)
        quality[name] = psnr(plain, made)
        predicted = trace.totals()["predicted_speedup"]
        print(f"\n{name}: {took[name]:.1f} s, {quality[name]:.1f} dB; {predicted:.2f}x predicted")
    assert took["both"] < min(took["gated"], took["sparse"])
    assert quality["both"] > 20
