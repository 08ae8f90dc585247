"""The tiny transformers whose feed-forward layers divide into experts, with inputs and a call."""

from __future__ import annotations

from typing import Any

import torch
from tiny import noise, texts
from tiny_models import TINY_MODELS
from torch import nn

from outpace.accel.experts import BlockGroup, find_sites

DIVIDING: dict[str, dict[str, Any]] = {
    "MochiTransformer3DModel": {"num_attention_heads": 3, "pooled_projection_dim": 24},
    "ZImageTransformer2DModel": {"dim": 24, "n_heads": 3, "n_kv_heads": 3},
}
"""Changes that give 64 hidden units where the tiny model has 42."""

CONVERTIBLE = [cls for cls in TINY_MODELS if cls != "SanaTransformer2DModel"]
MODULATED = [
    cls
    for cls in CONVERTIBLE
    if not cls.startswith(("Chroma", "Chrono", "Flux2", "LTX", "PixArt", "Sky", "Wan"))  # those share theirs already
]


def build(cls: str, **changes: Any) -> nn.Module:
    return TINY_MODELS[cls].build(**{**DIVIDING.get(cls, {}), **changes})


def run(model: nn.Module, seeds: tuple[int, ...] = (0, 1, 2), time: float = 620.0) -> torch.Tensor:
    """What `model` makes of three samples."""
    name = next(c.__name__ for c in type(model).__mro__ if c.__name__ in TINY_MODELS)
    tiny = TINY_MODELS[name]
    return tiny.call(model, noise(tiny, seeds), torch.full((len(seeds),), time), texts(seeds))


def middle(model: nn.Module, active: int = 1) -> BlockGroup:
    """A group of the two blocks before the last, which are of one kind in every tiny model."""
    from outpace.accel import find_family

    return BlockGroup(first=len(find_family(model).blocks(model)) - 3, size=2, active=active)


def first_scores(model: nn.Module) -> dict[str, torch.Tensor]:
    """Importance that falls from the last hidden unit to the first."""
    return {site.path: torch.arange(site.read().hidden).float() for site in find_sites(model)}
