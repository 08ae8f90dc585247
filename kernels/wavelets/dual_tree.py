"""One level of the dual-tree complex wavelet transform: what is smooth, and edges in six directions.

Where a plain wavelet's energy jumps as an edge moves by one pixel, that of these hardly changes.

Source: Kingsbury, 2001 (Complex wavelets for shift invariant analysis and filtering of signals); filters "near_sym_b",
13 and 19 taps, as in the packages dtcwt and pytorch_wavelets.
Shapes: B batch, C channels, Y X picture, both even.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import ConfigError

SMOOTH = (0.55546875, 0.296875, -0.0482421875, -0.046875, 0.022265625, 0.0, -0.0017578125)
"""Taps of the low pass that analyses, from the middle outwards."""
SMOOTH_BACK = (
    0.5594308035714286, 0.29975760323660716, -0.05168805803571428, -0.05564313616071428, 0.023856026785714284,
    0.007156808035714285, -0.0018833705357142855, -0.0013419015066964285, 0.0, 7.062639508928571e-05,
)  # fmt: skip
"""Taps of the low pass that puts together again."""
REACH = len(SMOOTH_BACK) - 1
"""Pixels that a filter sees to each side."""
DIRECTIONS = (15, 45, 75, 105, 135, 165)
"""Degrees of the edges that each band holds; the order of the bands."""


def dual_tree(x: Tensor) -> tuple[Tensor, Tensor]:
    """(what is smooth (B, C, Y, X), bands (B, C, 6, Y/2, X/2) of complex numbers) of pictures (B, C, Y, X).

    What is smooth is not thinned out. Borders are mirrored.

    Raises: ConfigError: not pictures of real numbers with even sides.

    >>> low, high = dual_tree(torch.ones(1, 1, 10, 12))
    >>> low.shape, high.shape, bool((low - 1).abs().max() < 1e-6), bool(high.abs().max() < 1e-6)
    (torch.Size([1, 1, 10, 12]), torch.Size([1, 1, 6, 5, 6]), True, True)
    """
    if x.ndim != 4 or not x.is_floating_point() or any(side % 2 or not side for side in x.shape[2:]):
        raise ConfigError(
            f"pictures (batch, channels, rows, columns) have real numbers and even sides, not {tuple(x.shape)} of "
            f"{x.dtype}"
        )
    low = _taps(SMOOTH, x)
    bank = torch.stack([low, _taps(SMOOTH_BACK, x, alternating=True)])
    across = _filtered(x.flatten(0, 1)[:, None], bank, 3)  # by columns: (BC, 2, Y, X)
    both = _filtered(across.flatten(0, 1)[:, None], bank, 2).unflatten(0, (-1, 2))  # (BC, 2, 2, Y, X)
    smooth, flat, steep, diagonal = both[:, 0, 0], both[:, 0, 1], both[:, 1, 0], both[:, 1, 1]
    (d15, d165), (d45, d135), (d75, d105) = (_complex(part) for part in (flat, diagonal, steep))
    high = torch.stack([d15, d45, d75, d105, d135, d165], 1)
    return smooth.view_as(x), high.unflatten(0, x.shape[:2])


def inverse_dual_tree(low: Tensor, high: Tensor) -> Tensor:
    """Pictures (B, C, Y, X) from what `dual_tree` gave.

    Raises: ConfigError: `high` is not complex numbers of shape (B, C, 6, Y/2, X/2).
    """
    expected = (*low.shape[:2], len(DIRECTIONS), *(side // 2 for side in low.shape[2:]))
    real = high.is_complex() and low.dtype == high.real.dtype
    if low.ndim != 4 or tuple(high.shape) != expected or not real:
        raise ConfigError(
            f"the bands of {tuple(low.shape)} are complex numbers {expected}, not {tuple(high.shape)} of {high.dtype} "
            f"beside {low.dtype}"
        )
    d15, d45, d75, d105, d135, d165 = high.flatten(0, 1).unbind(1)
    flat, diagonal, steep = _real(d15, d165), _real(d45, d135), _real(d75, d105)
    bank = torch.stack([_taps(SMOOTH_BACK, low), _taps(SMOOTH, low, alternating=True)])[None]
    smooth = low.flatten(0, 1)
    rows = torch.stack([torch.stack([smooth, flat], 1), torch.stack([steep, diagonal], 1)], 1)  # (BC, 2, 2, Y, X)
    columns = _filtered(rows.flatten(0, 1), bank, 2).unflatten(0, (-1, 2))[:, :, 0]
    return _filtered(columns, bank, 3).view_as(low)


def _taps(half: tuple[float, ...], like: Tensor, *, alternating: bool = False) -> Tensor:
    """A symmetric filter of 2 REACH + 1 taps; alternating signs make a high pass of a low pass."""
    taps = like.new_zeros(2 * REACH + 1)
    for place, value in enumerate(half):
        taps[REACH + place] = taps[REACH - place] = value * (-1) ** (place * alternating)
    return taps


def _filtered(x: Tensor, bank_OIT: Tensor, axis: int) -> Tensor:
    """Convolved along an axis, mirrored at its ends with the last pixel twice."""
    size = x.shape[axis]
    place = torch.arange(-REACH, size + REACH, device=x.device) % (2 * size)
    place = torch.where(place >= size, 2 * size - 1 - place, place)
    weight = bank_OIT if bank_OIT.ndim == 3 else bank_OIT[:, None]
    weight = weight[..., None, :] if axis == 3 else weight[..., None]
    return F.conv2d(x.index_select(axis, place), weight)


def _complex(x: Tensor) -> tuple[Tensor, Tensor]:
    """Bands of both diagonals' sides from the four pixels of each square."""
    a, b, c, d = (x[:, i::2, j::2] * 0.5**0.5 for i in (0, 1) for j in (0, 1))
    return torch.complex(a - d, b + c), torch.complex(a + d, b - c)


def _real(one: Tensor, other: Tensor) -> Tensor:
    """The inverse of `_complex`."""
    total, difference = one + other, one - other
    squares = torch.stack([total.real, total.imag, difference.imag, -difference.real], -1) * 0.5**0.5
    return squares.unflatten(-1, (2, 2)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
