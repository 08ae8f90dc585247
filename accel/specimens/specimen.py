"""Tiny random transformers, one for every class that a family names: two heads, few tokens, built in milliseconds.

Random weights prove plumbing, never fidelity. Every specimen is called alike: latents in, a field of the same shape
out, at a time in 0..1000, with a few text tokens a sample; what a model needs beyond that is made up from those.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

WIDTH, TEXT_TOKENS = 16, 5
"""Width and number of the text tokens of a sample."""

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

    apart: bool = True
    """False where the samples of a batch are decided together, or every call is one sample."""

    before: int = 0
    """Calls that fill a cache before the one that counts."""

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

    def noise(self, seeds: Sequence[int]) -> torch.Tensor:
        """Latents, one sample a seed: the same alone and among others."""
        return torch.stack([torch.randn(self.latent, generator=torch.Generator().manual_seed(s)) for s in seeds])

    @staticmethod
    def texts(seeds: Sequence[int]) -> torch.Tensor:
        """Text tokens, one sample a seed."""
        shape = (TEXT_TOKENS, WIDTH)
        return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(1000 + s)) for s in seeds])

    def inputs(self, seeds: Sequence[int], model: nn.Module) -> tuple[Sequence[Any], dict[str, Any]]:
        """The arguments of one call of `model` for some samples, as `check_family` asks for them."""
        try:
            self.call(
                Recorder(model, self.before),  # pyright: ignore[reportArgumentType]
                self.noise(seeds),
                torch.full((len(seeds),), 620.0),
                self.texts(seeds),
            )
        except Called as called:
            return called.args_given, called.kwargs_given
        raise RuntimeError(f"{self.cls} was not called")


class Called(Exception):
    """What a specimen was called with."""

    def __init__(self, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        super().__init__()
        self.args_given, self.kwargs_given = args, kwargs


class Recorder:
    """Takes the place of a model to learn how it is called, after so many calls that are let through."""

    def __init__(self, model: nn.Module, before: int) -> None:
        self.model, self.before = model, before

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.before == 0:
            raise Called(args, kwargs)
        self.before -= 1
        return self.model(*args, **kwargs)


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
