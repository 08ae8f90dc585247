"""Tiny random transformers, one for every class that a family names: two heads, few tokens, built in milliseconds.

Random weights prove plumbing, never fidelity. Every specimen is called alike: latents in, a field of the same shape
out, at a time in 0..1000, with a few text tokens a sample; what a model needs beyond that is made up from those.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

WIDTH = 16
"""Width of the text tokens."""

Call = Callable[[nn.Module, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Specimen:
    """How to build one tiny transformer and how to call it."""

    cls: str
    settings: dict[str, Any]
    latent: tuple[int, ...]
    """Shape of one sample's latents."""

    call: Call
    """call(model, latents_B..., time_B, text_BSD) -> a field shaped like the latents."""

    rounding: float = 1e-5
    """How far a sample may lie from the same sample among others, relative to the largest value."""

    home: str = "diffusers"
    """The module that has the class."""

    @property
    def id(self) -> str:
        return self.cls

    def build(self, seed: int = 0, **changes: Any) -> nn.Module:
        """A fresh transformer whose gates are open: with the initial zeros of adaLN every block is an identity."""
        torch.manual_seed(seed)
        cls = getattr(importlib.import_module(self.home), self.cls)
        model = cls(**{**self.settings, **changes}).eval().requires_grad_(False)
        for name, weight in model.named_parameters():
            weight.normal_(0.0, 0.1)
            if weight.ndim == 1 and name.endswith("weight"):
                weight.add_(1.0)
        return model


def rectangle(count: int) -> tuple[int, int]:
    """Height and width of `count` packed tokens, as near to a square as can be: 4 x 4 of 16, 8 x 12 of 96."""
    height = max(side for side in range(1, math.isqrt(count) + 1) if count % side == 0)
    return height, count // height


def positions(count: int, axes: int) -> torch.Tensor:
    """Where each packed token lies, as pipelines tell it: (frame, row, column), and a fourth axis that counts text."""
    ids, width = torch.zeros(count, axes), rectangle(count)[1]
    ids[:, 1], ids[:, 2] = torch.arange(count) // width, torch.arange(count) % width
    return ids


HEADS = {"num_attention_heads": 2, "attention_head_dim": 8}
DOUBLE_SINGLE = {"num_layers": 2, "num_single_layers": 3}
PACKED, IMAGE, VIDEO = (16, 4), (4, 8, 8), (4, 2, 8, 8)
TEXT_TO_VIDEO = {**HEADS, "in_channels": 4, "out_channels": 4, "num_layers": 4}


def specimens(*found: Specimen) -> dict[str, Specimen]:
    """Specimens by the name of their class."""
    return {one.cls: one for one in found}
