"""What holds in float32 holds in bfloat16 and float16: exact at threshold 0, and dials that keep their meaning."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tiny
import torch
from tiny import TinyPipeline
from tiny_models import TINY_MODELS
from torch.utils._pytree import tree_map

from outpace.accel import GatedTaylor, IntervalTaylor, Method, ScheduledTaylor, accelerate
from outpace.pipelines import POCKETS, load_pocket

halves = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])


@pytest.fixture
def in_half(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> torch.dtype:
    """Tiny pipelines make their noise and text in this type."""
    for name in ("noise", "texts"):
        made = getattr(tiny, name)
        monkeypatch.setattr(tiny, name, lambda *given, _made=made: _made(*given).to(dtype))
    return dtype


def given_in_its_type(transformer: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """What a tiny model is given beside latents and text, such as another encoder's or the time, as pipelines do."""
    dtype = next(transformer.parameters()).dtype

    def cast(value: Any) -> Any:
        return value.to(dtype) if isinstance(value, torch.Tensor) and value.dtype == torch.float32 else value

    return tree_map(cast, args), tree_map(cast, kwargs)


@halves
@pytest.mark.parametrize("cls", TINY_MODELS)
def test_every_family_is_exact_at_threshold_zero_and_forecasts_in_its_own_type(
    cls: str, in_half: torch.dtype, dtype: torch.dtype
) -> None:
    pipe = TinyPipeline(cls)
    pipe.transformer.to(dtype)
    pipe.transformer.register_forward_pre_hook(given_in_its_type, with_kwargs=True)
    plain = pipe([0, 1], steps=6)
    assert plain.dtype == dtype
    with accelerate(pipe, GatedTaylor(threshold=0.0)) as run:
        assert torch.equal(pipe([0, 1], steps=6), plain) and run.trace.totals()["forecast"] == 0
    with accelerate(pipe, IntervalTaylor(interval=3, warmup=2)) as run:
        made = pipe([0, 1], steps=6)
    assert run.trace.totals()["forecast"] > 0
    assert made.dtype == dtype and bool(made.isfinite().all()) and not torch.equal(made, plain)


def pictures(pocket: str, dtype: torch.dtype, *methods: Method, prompts: int, steps: int) -> tuple[np.ndarray, float]:
    """Of held-out prompts, with the share of calls that were forecast."""
    pipe = load_pocket(pocket).to(dtype)
    pipe.set_progress_bar_config(disable=True)
    recipe, made, forecast, samples = POCKETS[pocket], [], 0, 0
    for prompt in recipe.prompts(prompts, "held_out"):
        asked: dict[str, Any] = {**recipe.call, "num_inference_steps": steps, "output_type": "np"}
        asked["generator"] = torch.Generator().manual_seed(11)
        given = {"class_labels": [3]} if pocket == "dit" else {"prompt": prompt}
        if not methods:
            made.append(np.asarray(pipe(**given, **asked)[0]))
            continue
        with accelerate(pipe, *methods) as run:
            made.append(np.asarray(pipe(**given, **asked)[0]))
        totals = run.trace.totals()
        forecast, samples = forecast + totals["forecast"], samples + totals["samples"]
    return np.stack(made), forecast / max(samples, 1)


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2)))


@halves
def test_the_pocket_flux_is_exact_at_threshold_zero(dtype: torch.dtype) -> None:
    plain, _ = pictures("flux", dtype, prompts=1, steps=8)
    made, share = pictures("flux", dtype, GatedTaylor(threshold=0.0), prompts=1, steps=8)
    assert np.array_equal(plain, made) and share == 0.0


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [
        IntervalTaylor(interval=3),
        ScheduledTaylor(speedup=2.2),
        ScheduledTaylor(speedup=4.0),
        GatedTaylor(threshold=0.1),
    ],
    ids=["interval", "preset", "four", "threshold"],
)
def test_dials_in_bfloat16_beside_float32(method: Method) -> None:
    """A dial of shares means the same to the step. A threshold does not carry: rounding adds to what its plan sees.

    Two runs in bfloat16 that differ anywhere differ by its rounding too, which is measured by the plain pictures of
    both types; more than that and what the forecast costs in float32 may not be lost, but for 2 dB.
    """
    found, plain = {}, {}
    for dtype in (torch.float32, torch.bfloat16):
        plain[dtype], _ = pictures("flux", dtype, prompts=4, steps=28)
        made, share = pictures("flux", dtype, method, prompts=4, steps=28)
        found[dtype] = (share, psnr(plain[dtype], made))
    (wide_share, wide), (half_share, half) = found[torch.float32], found[torch.bfloat16]
    rounding = psnr(plain[torch.float32], plain[torch.bfloat16])
    print(
        f"\n{method.name}: float32 {wide_share:.3f} at {wide:.2f} dB, bfloat16 {half_share:.3f} at {half:.2f} dB; "
        f"rounding alone {rounding:.2f} dB"
    )
    both = -10 * np.log10(10 ** (-wide / 10) + 10 ** (-rounding / 10))
    assert half >= both - 2.0
    if isinstance(method, GatedTaylor):
        assert half_share <= wide_share
    else:
        assert half_share == wide_share
