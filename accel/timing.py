"""Seconds on a clock, for the parts of a denoiser call."""

from __future__ import annotations

import time
from typing import Any

import torch


def now(named: dict[str, Any]) -> float:
    """Seconds on a clock, after the accelerator has finished what was asked of it."""
    if torch.cuda.is_available() and any(isinstance(v, torch.Tensor) and v.is_cuda for v in named.values()):
        torch.cuda.synchronize()
    return time.perf_counter()
