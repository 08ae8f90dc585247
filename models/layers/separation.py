"""What separation of sources is trained and judged by.

Source: Le Roux et al., 2019, arXiv:1811.02508 (SI-SDR); Yu et al., 2017, arXiv:1607.00325 (permutation invariance).
Shapes: B batch, S sources, L samples.
"""

from __future__ import annotations

from itertools import permutations

import torch
from torch import Tensor

from ...errors import ConfigError


def si_sdr(estimate: Tensor, target: Tensor) -> Tensor:
    """Decibels of the target over what is not the target, whatever its loudness and offset: (..., L) -> (...).

    >>> tone = torch.sin(torch.arange(100.0))
    >>> bool(si_sdr(-3 * tone + 1, tone) > 80), round(float(si_sdr(tone + tone.flip(0), tone)))
    (True, 0)
    """
    estimate, target = (x - x.mean(-1, keepdim=True) for x in (estimate, target))
    tiny = torch.finfo(target.dtype).eps
    share = (estimate * target).sum(-1, keepdim=True) / (target.square().sum(-1, keepdim=True) + tiny)
    kept = share * target
    return 10 * ((kept.square().sum(-1) + tiny) / ((estimate - kept).square().sum(-1) + tiny)).log10()


def in_best_order(estimates_BSL: Tensor, targets_BSL: Tensor) -> tuple[Tensor, Tensor]:
    """(estimates in the order that suits the targets best, SI-SDR (B, S) of each): models name sources as they like.

    Raises: ConfigError: other shapes, or more than 6 sources, whose orders are too many to try.
    """
    if estimates_BSL.shape != targets_BSL.shape or estimates_BSL.ndim != 3 or estimates_BSL.shape[1] > 6:
        raise ConfigError(
            f"estimates and targets have one shape (batch, at most 6 sources, samples), not "
            f"{tuple(estimates_BSL.shape)} and {tuple(targets_BSL.shape)}"
        )
    sources = targets_BSL.shape[1]
    orders = torch.tensor(list(permutations(range(sources))), device=targets_BSL.device)
    pairs = si_sdr(estimates_BSL[:, :, None], targets_BSL[:, None])  # (B, estimate, target)
    by_order = pairs[:, orders, torch.arange(sources, device=orders.device)]  # (B, orders, S)
    best = by_order.mean(-1).argmax(1)
    rows = torch.arange(len(best), device=best.device)
    return estimates_BSL[rows[:, None], orders[best]], by_order[rows, best]
