"""Attention inside windows of a picture: rectangular, shifted, with a bias for relative positions.

Source: Liu et al., 2021, arXiv:2103.14030 (windows, shifts, bias table); Li et al., 2023, arXiv:2308.05022 (rectangles
without a mask).
Shapes: B batch, Y X grid, H heads, D width of keys, V width of values, W windows, P positions of a window.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import ConfigError
from .attend import attend

Pair = tuple[int, int]


def window_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    window: Pair,
    shift: Pair = (0, 0),
    bias: Tensor | None = None,
    masked: bool = True,
    scale: float | None = None,
) -> Tensor:
    """softmax(q k^T scale + bias) v among the positions of each window.

    The grid is rolled by `shift` first, so that a window may hold positions from opposite borders: these see each other
    only where `masked` is False. A grid that windows do not fill is padded at its ends; padding is never seen.

    Shapes: q and k (B, Y, X, H, D), v (B, Y, X, H, V) -> (B, Y, X, H, V).

    Args:
        window: rows and columns of a window.
        shift: rows and columns by which windows are moved; each less than the window's.
        bias: (H, P, P), added to the scores of each window: see `relative_bias`.
        masked: keep positions apart that are neighbours only because the grid is rolled.
        scale: of the scores; 1 / sqrt(D) where None.

    Raises: ConfigError: shapes or settings that do not fit together.
    """
    _check(q, k, v, window, shift, bias)
    size = q.shape[1:3]
    q, k, v = (_moved(x, window, shift) for x in (q, k, v))
    padded: Pair = (q.shape[1], q.shape[2])
    allowed = _allowed((size[0], size[1]), padded, window, shift, masked, q.device)
    if allowed is not None:
        allowed = allowed.repeat(q.shape[0], 1, 1)[:, None]
    q, k, v = (into_windows(x.flatten(3), window).unflatten(-1, x.shape[3:]) for x in (q, k, v))
    q, k, v = (x.flatten(0, 1).transpose(1, 2) for x in (q, k, v))
    out = attend(q, k, v, allowed=allowed, bias=bias, scale=scale)
    heads = out.shape[1], out.shape[3]
    out = from_windows(out.transpose(1, 2).flatten(2), padded, window).unflatten(-1, heads)
    return out.roll(shift, (1, 2))[:, : size[0], : size[1]]


def into_windows(x: Tensor, window: Pair) -> Tensor:
    """(B, Y, X, C) -> (B, W, P, C): windows row by row, and their positions row by row.

    Raises: ConfigError: windows do not fill the grid.
    """
    if x.ndim != 4 or min(window) < 1 or x.shape[1] % window[0] or x.shape[2] % window[1]:
        raise ConfigError(
            f"windows of {window[0]} x {window[1]} do not fill x (batch, rows, columns, channels) {tuple(x.shape)}; "
            "pad it to a multiple"
        )
    batch, rows, columns, channels = x.shape
    cut = x.reshape(batch, rows // window[0], window[0], columns // window[1], window[1], channels)
    return cut.transpose(2, 3).reshape(batch, -1, window[0] * window[1], channels)


def from_windows(x: Tensor, size: Pair, window: Pair) -> Tensor:
    """The grid (B, Y, X, C) back from its windows: (B, W, P, C) or (B W, P, C).

    Raises: ConfigError: windows do not fill the grid.
    """
    if min(window) < 1 or size[0] % window[0] or size[1] % window[1]:
        raise ConfigError(f"windows of {window[0]} x {window[1]} do not fill a grid of {size[0]} x {size[1]}")
    cut = x.reshape(-1, size[0] // window[0], size[1] // window[1], *window, x.shape[-1])
    return cut.transpose(2, 3).reshape(-1, *size, x.shape[-1])


def relative_bias(table: Tensor, window: Pair) -> Tensor:
    """(H, P, P): what `table` (H, 2 rows - 1, 2 columns - 1) holds for the offset from a key to a query.

    A table of another size is resized first (bilinear, corners on corners): a model moves to larger windows so.
    """
    if table.ndim != 3:
        raise ConfigError(f"a table of relative positions is (heads, rows, columns), not {tuple(table.shape)}")
    wanted = (2 * window[0] - 1, 2 * window[1] - 1)
    if tuple(table.shape[1:]) != wanted:
        table = F.interpolate(table[None], wanted, mode="bilinear", align_corners=True)[0]
    row, column = _positions(window, table.device)
    down = row[:, None] - row + window[0] - 1
    right = column[:, None] - column + window[1] - 1
    return table[:, down, right]


def reference_window_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    window: Pair,
    shift: Pair = (0, 0),
    bias: Tensor | None = None,
    masked: bool = True,
    scale: float | None = None,
) -> Tensor:
    """The same from the coordinates of every pair of positions, float64."""
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    size: Pair = (q.shape[1], q.shape[2])
    padded = (-(-size[0] // window[0]) * window[0], -(-size[1] // window[1]) * window[1])
    at = [(at - s) % n for at, s, n in zip(_positions(size, q.device), shift, padded, strict=True)]
    same = torch.ones(size[0] * size[1], size[0] * size[1], dtype=torch.bool)
    within = torch.zeros(size[0] * size[1], dtype=torch.long)
    for moved, w, s, n in zip(at, window, shift, padded, strict=True):
        same &= moved[:, None] // w == moved // w
        if masked:
            same &= (moved[:, None] >= n - s) == (moved >= n - s)
        within = within * w + moved % w
    scores = torch.einsum("byxhd,bzwhd->bhyxzw", q.double(), k.double()).flatten(4).flatten(2, 3) * factor
    if bias is not None:
        scores = scores + bias.double()[:, within[:, None], within]
    weights = scores.masked_fill(~same, -torch.inf).softmax(-1)
    return (weights @ v.double().flatten(1, 2).transpose(1, 2)).transpose(1, 2).unflatten(1, size)


def _moved(x: Tensor, window: Pair, shift: Pair) -> Tensor:
    """Padded to whole windows, then rolled."""
    rows, columns = -x.shape[1] % window[0], -x.shape[2] % window[1]
    x = F.pad(x, (0, 0, 0, 0, 0, columns, 0, rows)) if rows or columns else x
    return x.roll((-shift[0], -shift[1]), (1, 2)) if any(shift) else x


def _allowed(size: Pair, padded: Pair, window: Pair, shift: Pair, masked: bool, device: torch.device) -> Tensor | None:
    """bool (W, P, P); None where every position of a window may see every other."""
    if size == padded and not (masked and any(shift)):
        return None
    ids, real = (
        torch.zeros(padded, dtype=torch.long, device=device),
        torch.ones(padded, dtype=torch.bool, device=device),
    )
    for axis, (n, m, s) in enumerate(zip(size, padded, shift, strict=True)):
        place = torch.arange(m, device=device)
        line = [1, 1]
        line[axis] = m
        ids = 2 * ids + (place >= m - s).reshape(line) * masked
        real = real & ((place + s) % m < n).reshape(line)
    ids, real = (into_windows(x[None, :, :, None], window)[0, :, :, 0] for x in (ids, real))
    return (ids[:, :, None] == ids[:, None]) & real[:, None]


def _positions(size: Pair, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows and columns of a grid's positions, row by row."""
    place = torch.arange(size[0] * size[1], device=device)
    return place // size[1], place % size[1]


def _check(q: Tensor, k: Tensor, v: Tensor, window: Pair, shift: Pair, bias: Tensor | None) -> None:
    if q.ndim != 5 or q.shape != k.shape or v.ndim != 5 or v.shape[:4] != q.shape[:4]:
        raise ConfigError(
            f"window attention takes q, k and v of shape (batch, rows, columns, heads, width), not {tuple(q.shape)}, "
            f"{tuple(k.shape)} and {tuple(v.shape)}"
        )
    if min(window) < 1 or not all(0 <= s < w for s, w in zip(shift, window, strict=True)):
        raise ConfigError(f"a window has at least one row and column and is moved by less, not {window} by {shift}")
    places = window[0] * window[1]
    if bias is not None and tuple(bias.shape) != (q.shape[3], places, places):
        raise ConfigError(f"the bias of these windows must have shape {(q.shape[3], places, places)}, not {bias.shape}")
