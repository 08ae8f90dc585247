"""How near two results are that would be one in exact arithmetic: decided here once, from the type and the values.

Two objects, two batch sizes or two places in memory may be summed in another order: on some processors the last bits
differ, and steps of a run carry them on. What is one object asked twice, and what is a weight, is compared bit for bit;
decisions are compared exactly.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

ROUNDINGS = {torch.float64: 800, torch.float32: 800, torch.float16: 8, torch.bfloat16: 4}
"""Roundings of the largest value that may lie between two results; half types are summed in float32.

On an AMD EPYC a pipeline's latents were 84 float32 roundings of the largest apart between a batch of one and of three,
and clips of two copies of a model 1; runs of more steps carry them further.
"""


def rounding(values: Any) -> float:
    """The most by which a result like `values` may differ, in its own units."""
    tensor = torch.as_tensor(values)
    largest = float(tensor.abs().amax()) if tensor.numel() else 0.0
    return ROUNDINGS[tensor.dtype] * torch.finfo(tensor.dtype).eps * largest


def assert_same_but_rounding(one: Any, other: Any) -> None:
    """Both results are the same up to the order in which they were summed. Raises: AssertionError with the distance."""
    one, other = torch.as_tensor(one), torch.as_tensor(other)
    assert one.dtype == other.dtype, f"{one.dtype} beside {other.dtype}"
    np.testing.assert_allclose(
        one.detach().double().numpy(), other.detach().double().numpy(), rtol=0, atol=rounding(other), equal_nan=True
    )
