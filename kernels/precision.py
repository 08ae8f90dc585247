"""The widest floating-point type of a device: sums that decide something are made in it."""

from __future__ import annotations

import torch

WITHOUT_FLOAT64 = {"mps"}
"""Types of devices that have no float64."""


def widest(device: torch.device) -> torch.dtype:
    """float64, or float32 where the device has none."""
    return torch.float32 if device.type in WITHOUT_FLOAT64 else torch.float64


def widened(x: torch.Tensor) -> torch.Tensor:
    """The same numbers in the widest type of the device that they lie on."""
    return x.to(widest(x.device))
