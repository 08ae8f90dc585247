"""Low-rank tuning: a frozen matrix and a small learned change of it, folded into it when training is over.

Source: Hu et al., 2021, arXiv:2106.09685.
Shapes: D inputs, O outputs, K rank.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import ConfigError


class LowRank(nn.Module):
    """W x + b + (alpha / K) B A x: at the start B is 0 and nothing is changed."""

    def __init__(self, layer: nn.Linear, *, rank: int, alpha: float) -> None:
        super().__init__()
        if rank < 1 or not alpha > 0:
            raise ConfigError(f"a low-rank change has a rank of at least 1 and alpha above 0, not {rank} and {alpha}")
        self.layer, self.scale = layer.requires_grad_(False), alpha / rank
        self.down_KD = nn.Parameter(layer.weight.new_empty(rank, layer.in_features))
        self.up_OK = nn.Parameter(layer.weight.new_zeros(layer.out_features, rank))
        nn.init.kaiming_uniform_(self.down_KD, math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + self.scale * F.linear(F.linear(x, self.down_KD), self.up_OK)

    @torch.no_grad()
    def folded(self) -> nn.Linear:
        """The plain layer that gives the same."""
        self.layer.weight += self.scale * self.up_OK @ self.down_KD
        return self.layer


def add_low_rank(model: nn.Module, names: Collection[str], *, rank: int = 8, alpha: float = 8.0) -> nn.Module:
    """Freeze a model, in place, but for a low-rank change of every linear layer that has one of the names.

    Raises: ConfigError: there is no such layer.
    """
    places = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if name in names and isinstance(child, nn.Linear)
    ]
    if not places:
        raise ConfigError(f"{type(model).__name__} has no linear layer named {' or '.join(names)}")
    model.requires_grad_(False)
    for parent, name, child in places:
        setattr(parent, name, LowRank(child, rank=rank, alpha=alpha))
    return model


def fold_low_rank(model: nn.Module) -> nn.Module:
    """Make plain layers of all low-rank changes, in place, and let everything learn again."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, LowRank):
                setattr(parent, name, child.folded())
    return model.requires_grad_(True)
