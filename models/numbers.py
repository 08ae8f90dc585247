"""Numbers from an arithmetic rule: the same on every processor and in every version, where random ones need not be.

Inputs to try a model on, and weights for checks that hold a model to what it once gave.
"""

from __future__ import annotations

import zlib
from typing import Any

import torch
from torch import Tensor, nn

BITS = 0xFFFFFFFF
NORMS = (
    nn.LayerNorm,
    nn.RMSNorm,
    nn.GroupNorm,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
)


def numbers(shape: tuple[int, ...] | torch.Size, seed: int = 0, *, dtype: torch.dtype = torch.float64) -> Tensor:
    """Spread over [-1, 1) like random ones: place and seed through two rounds of multiply and shift, in whole numbers.

    >>> numbers((3,)).tolist() == numbers((4,)).tolist()[:3], numbers((1000,)).abs().max() < 1
    (True, tensor(True))
    """
    return ((_mixed(shape, seed).double() + 0.5) / 2**31 - 1).to(dtype)


def whole_numbers(shape: tuple[int, ...], below: int, seed: int = 0) -> Tensor:
    """Of int64, from 0 to below: tokens, classes."""
    return (_mixed(shape, seed) >> 3) % below


def picture_batch(rows: int, columns: int | None = None, *, channels: int = 3, count: int = 2) -> Tensor:
    """(count, channels, rows, columns) from 0 to 1, square where columns are None: examples for models of pictures."""
    shape = (count, channels, rows, rows if columns is None else columns)
    return numbers(shape).float() / 2 + 0.5


def tokens_for(config: Any) -> tuple[Tensor]:
    """Two texts of 12 tokens that a language model with `vocabulary` knows."""
    return (whole_numbers((2, 12), config.vocabulary),)


def fill(model: nn.Module) -> nn.Module:
    """Give every parameter and running statistic of a model its number, in place, so that no term is 0 or hidden.

    Matrices and filters are drawn as wide as keeps the size of what goes through; norms and single scales lie around 1,
    and offsets around 0, whatever they begin with. Each depends on its name alone.
    """
    norms = {name for name, part in model.named_modules() if isinstance(part, NORMS)}
    layers = {
        name
        for name, part in model.named_modules()
        if isinstance(part, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d))
    }
    kept = model.state_dict().keys()
    with torch.no_grad():
        for name, value in (*model.named_parameters(), *model.named_buffers()):
            if not value.is_floating_point() or name not in kept:
                continue
            owner, _, kind = name.rpartition(".")
            u = numbers(value.shape, zlib.crc32(name.encode()))
            if "bias" in kind or "mean" in kind:
                u = 0.5 * u
            elif owner in norms or value.ndim <= 1 or max(value.shape) == value.numel():
                u = 1 + 0.5 * u
            elif owner in layers:
                u = u * (3 / value[0].numel()) ** 0.5
            value.copy_(u)
    return model


def _mixed(shape: tuple[int, ...] | torch.Size, seed: int) -> Tensor:
    """Of int64, from 0 to 2^32."""
    count = torch.Size(shape).numel()
    x = (torch.arange(count, dtype=torch.int64) * 2_654_435_761 + (seed & BITS) * 40_503 + 12_345) & BITS
    for factor in (73_244_475, 73_244_475):
        x = ((x ^ (x >> 16)) * factor) & BITS
    return (x ^ (x >> 16)).reshape(shape)
