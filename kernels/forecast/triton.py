"""Weighted sums and errors as Triton kernels: every value is read once, nothing is written but the result.

No autotuning and no atomics: results repeat bit for bit. Shapes: numbers of the values one after the other.
"""

# Type checkers see a kernel as the Python function it is written as, not as what `triton.jit` makes of it.
# pyright: reportCallIssue=false, reportAssignmentType=false

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from ..triton_limits import capability, refuses_device, refuses_type, unspilled

MOST = 6
"""Values of a sum."""
NUMBERS = 2048
"""That a program takes at a time: 16 a thread, two loads of 16 bytes in half precision."""
WARPS = 4
PROGRAMS = 1056
"""That add up errors: 8 for each multiprocessor of a Hopper card. Each takes every so-many-th tile."""


@triton.jit
def _weighted(v0, v1, v2, v3, v4, v5, w0, w1, w2, w3, w4, w5, at, inside, COUNT: tl.constexpr):
    """The weighted sum of COUNT values at some places, in float32; later weights are added to it one by one."""
    total = tl.load(v0 + at, mask=inside, other=0.0).to(tl.float32) * w0
    if COUNT > 1:
        total += tl.load(v1 + at, mask=inside, other=0.0).to(tl.float32) * w1
    if COUNT > 2:
        total += tl.load(v2 + at, mask=inside, other=0.0).to(tl.float32) * w2
    if COUNT > 3:
        total += tl.load(v3 + at, mask=inside, other=0.0).to(tl.float32) * w3
    if COUNT > 4:
        total += tl.load(v4 + at, mask=inside, other=0.0).to(tl.float32) * w4
    if COUNT > 5:
        total += tl.load(v5 + at, mask=inside, other=0.0).to(tl.float32) * w5
    return total


@triton.jit
def _combine_kernel(
    v0, v1, v2, v3, v4, v5, out, w0, w1, w2, w3, w4, w5, numbers, COUNT: tl.constexpr, NUMBERS: tl.constexpr
):
    """One tile of the result."""
    at = tl.program_id(0).to(tl.int64) * NUMBERS + tl.arange(0, NUMBERS)
    inside = at < numbers
    total = _weighted(v0, v1, v2, v3, v4, v5, w0, w1, w2, w3, w4, w5, at, inside, COUNT)
    tl.store(out + at, total.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _sums_kernel(
    v0, v1, v2, v3, v4, v5, truth, found, w0, w1, w2, w3, w4, w5, numbers, COUNT: tl.constexpr, NUMBERS: tl.constexpr
):  # fmt: skip
    """(sum |weighted sum - truth|, sum |truth|) over every so-many-th tile."""
    missed = tl.zeros([NUMBERS], tl.float32)
    whole = tl.zeros([NUMBERS], tl.float32)
    wide = tl.full([], NUMBERS, tl.int64)
    for tile in range(tl.program_id(0), tl.cdiv(numbers, NUMBERS), tl.num_programs(0)):
        at = tile * wide + tl.arange(0, NUMBERS)
        inside = at < numbers
        total = _weighted(v0, v1, v2, v3, v4, v5, w0, w1, w2, w3, w4, w5, at, inside, COUNT)
        true = tl.load(truth + at, mask=inside, other=0.0)
        # What would be forecast is a number of the values' type.
        guess = total.to(true.dtype).to(tl.float32)
        true = true.to(tl.float32)
        missed += tl.abs(guess - true)
        whole += tl.abs(true)
    tl.store(found + 2 * tl.program_id(0), tl.sum(missed))
    tl.store(found + 2 * tl.program_id(0) + 1, tl.sum(whole))


INTERPRETED = not isinstance(_combine_kernel, triton.JITFunction)


def options(device: torch.device) -> dict[str, int]:
    """How the kernels are compiled for a card."""
    return {"num_warps": WARPS, **unspilled(capability(device, interpreted=INTERPRETED))}


def combine(values: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """See `weighted.combine`."""
    out = torch.empty_like(values[0])
    with torch.cuda.device_of(out):
        _combine_kernel[(triton.cdiv(out.numel(), NUMBERS),)](
            *_filled(values), out, *_filled(weights), out.numel(),
            COUNT=len(values), NUMBERS=NUMBERS, **options(values[0].device),
        )  # fmt: skip
    return out


def sums(values: Sequence[torch.Tensor], weights: Sequence[float], truth: torch.Tensor) -> torch.Tensor:
    """See `weighted.error_sums`."""
    programs = min(PROGRAMS, triton.cdiv(truth.numel(), NUMBERS))
    found = truth.new_empty(programs, 2, dtype=torch.float32)  # pyright: ignore
    with torch.cuda.device_of(truth):
        _sums_kernel[(programs,)](
            *_filled(values), truth, found, *_filled(weights), truth.numel(),
            COUNT=len(values), NUMBERS=NUMBERS, **options(values[0].device),
        )  # fmt: skip
    return found.sum(0)


def combine_refuses(value: torch.Tensor, count: int, even: bool) -> str | None:
    """Why the kernels cannot take `count` values like `value`, or None.

    Args:
        even: whether all lie in memory alike, without gaps.
    """
    if count > MOST:
        return f"{count} values: takes up to {MOST}"
    if not even:
        return "values that lie in memory with gaps, or are of several types"
    if value.numel() == 0:
        return "there is nothing to do"
    if torch.is_grad_enabled() and value.requires_grad:
        return "it has no gradients; call it under torch.no_grad()"
    return refuses_type(value) or refuses_device(value, interpreted=INTERPRETED)


def _filled(given: Sequence[torch.Tensor] | Sequence[float]) -> list[torch.Tensor | float]:
    """As many as the kernel has places for; those that are left over are not looked at."""
    return [*given, *[given[0]] * (MOST - len(given))]
