"""Attention with linear biases: a penalty that grows with the distance takes the place of position embeddings.

Source: Press et al., 2022, arXiv:2108.12409.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...errors import ConfigError


def alibi_slopes(heads: int) -> Tensor:
    """float32 (heads): the penalty per token of distance.

    2^(-8 i / n) for n a power of two; otherwise those of the next smaller power, then every second one of twice it.

    >>> alibi_slopes(4)
    tensor([0.2500, 0.0625, 0.0156, 0.0039])
    """
    if heads < 1:
        raise ConfigError(f"ALiBi needs at least 1 head, not {heads}")
    power = 2 ** int(math.log2(heads))
    slopes = [2 ** (-8 * (i + 1) / power) for i in range(power)]
    slopes += [2 ** (-8 * (i + 1) / (2 * power)) for i in range(0, 2 * power, 2)][: heads - power]
    return torch.tensor(slopes)


def alibi_bias(heads: int, queries: int, keys: int | None = None) -> Tensor:
    """float32 (heads, queries, keys): minus slope times distance, to both sides; queries are the last positions."""
    keys = queries if keys is None else keys
    distance = (torch.arange(keys - queries, keys)[:, None] - torch.arange(keys)).abs()
    return -alibi_slopes(heads)[:, None, None] * distance
