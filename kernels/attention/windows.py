"""Attention inside windows of a grid, a picture's, a volume's or a clip's: shifted, with a bias for relative positions.

Source: Liu et al., 2021, arXiv:2103.14030 (windows, shifts, bias table); Li et al., 2023, arXiv:2308.05022 (rectangles
without a mask); Mo et al., 2023, arXiv:2307.01831 (windows of a volume).
Shapes: B batch, Y X rows and columns of a grid, which may have one, two or three axes, H heads, D width of keys,
V width of values, W windows, P positions of a window.
"""

from __future__ import annotations

import math
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import ConfigError
from ..inputs import check_one_type
from .attend import attend

Pair = tuple[int, int]
Sides = tuple[int, ...]
"""A number for each axis of a grid."""

RESIZES = {1: "linear", 2: "bilinear", 3: "trilinear"}
"""How tables of so many axes are resized."""


def window_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    window: Sides,
    shift: Sides | None = None,
    bias: Tensor | None = None,
    masked: bool = True,
    scale: float | None = None,
) -> Tensor:
    """softmax(q k^T scale + bias) v among the positions of each window.

    The grid is rolled by `shift` first, so that a window may hold positions from opposite borders: these see each other
    only where `masked` is False. A grid that windows do not fill is padded at its ends; padding is never seen.

    Shapes: q and k (B, Y, X, H, D), v (B, Y, X, H, V) -> (B, Y, X, H, V); or with one or three axes for the two.

    Args:
        window: rows and columns of a window.
        shift: rows and columns by which windows are moved, each less than the window's; by none where None.
        bias: (H, P, P), added to the scores of each window: see `relative_bias`.
        masked: keep positions apart that are neighbours only because the grid is rolled.
        scale: of the scores; 1 / sqrt(D) where None.

    Raises: ConfigError: shapes or settings that do not fit together.
    """
    shift = (0,) * len(window) if shift is None else shift
    _check(q, k, v, window, shift, bias)
    axes = len(window)
    size = tuple(q.shape[1:-2])
    q, k, v = (_moved(x, window, shift) for x in (q, k, v))
    padded = tuple(q.shape[1:-2])
    allowed = _allowed(size, padded, window, shift, masked, q.device)
    if allowed is not None:
        apart = q.new_zeros(allowed.shape).masked_fill_(~allowed, -torch.inf)[:, None]
        apart = apart if bias is None else bias.to(q.dtype) + apart
        bias = apart.expand(q.shape[0], *apart.shape).flatten(0, 1)
    q, k, v = (into_windows(x.flatten(-2), window).unflatten(-1, x.shape[-2:]) for x in (q, k, v))
    q, k, v = (x.flatten(0, 1).transpose(1, 2) for x in (q, k, v))
    out = attend(q, k, v, bias=bias, scale=scale)
    heads = out.shape[1], out.shape[3]
    out = from_windows(out.transpose(1, 2).flatten(2), padded, window).unflatten(-1, heads)
    out = out.roll(shift, tuple(range(1, axes + 1))) if any(shift) else out
    return out[(slice(None), *map(slice, size))]


def into_windows(x: Tensor, window: Sides) -> Tensor:
    """(B, Y, X, C) -> (B, W, P, C): windows row by row, and their positions row by row.

    Raises: ConfigError: windows do not fill the grid.
    """
    size = tuple(x.shape[1:-1])
    if not _fill(size, window):
        raise ConfigError(
            f"windows of {_by(window)} do not fill x (batch, rows, columns, channels) {tuple(x.shape)}; "
            "pad it to a multiple"
        )
    cut = x.reshape(x.shape[0], *chain(*((n // w, w) for n, w in zip(size, window, strict=True))), x.shape[-1])
    counts, inside = range(1, 2 * len(window), 2), range(2, 2 * len(window) + 1, 2)
    count = math.prod(size) // math.prod(window)
    return cut.permute(0, *counts, *inside, -1).reshape(x.shape[0], count, math.prod(window), x.shape[-1])


def from_windows(x: Tensor, size: Sides, window: Sides) -> Tensor:
    """The grid (B, Y, X, C) back from its windows: (B, W, P, C) or (B W, P, C).

    Raises: ConfigError: windows do not fill the grid, or these are not its windows.
    """
    if not _fill(size, window):
        raise ConfigError(f"windows of {_by(window)} do not fill a grid of {_by(size)}")
    axes, count, places = len(window), math.prod(size) // math.prod(window), math.prod(window)
    windows = math.prod(x.shape[:-2])
    if (
        x.ndim not in (3, 4)
        or x.shape[-2] != places
        or not count
        or windows % count
        or (x.ndim == 4 and x.shape[1] != count)
    ):
        raise ConfigError(
            f"a grid of {_by(size)} has {count} windows of {places} positions (batch, windows, positions, channels), "
            f"not {tuple(x.shape)}"
        )
    cut = x.reshape(windows // count, *(n // w for n, w in zip(size, window, strict=True)), *window, x.shape[-1])
    order = chain(*((1 + axis, 1 + axes + axis) for axis in range(axes)))
    return cut.permute(0, *order, -1).reshape(windows // count, *size, x.shape[-1])


def relative_bias(table: Tensor, window: Sides, *, corners: bool = True) -> Tensor:
    """(H, P, P): what `table` (H, 2 rows - 1, 2 columns - 1) holds for the offset from a key to a query.

    A table of another size is resized first (bilinear): a model moves to larger windows so.

    Args:
        corners: whether a resized table's corners are those it had; otherwise its numbers lie in the middle of cells,
            as TensorFlow's do.
    """
    check_one_type("a bias for relative positions", table=table)
    if table.ndim != 1 + len(window) or len(window) not in RESIZES or not table.numel() or min(window) < 1:
        raise ConfigError(
            f"a table of relative positions is (heads, rows, columns), an axis for each of the window's "
            f"{len(window)}, not {tuple(table.shape)}"
        )
    wanted = [2 * side - 1 for side in window]
    if list(table.shape[1:]) != wanted:
        table = F.interpolate(table[None], wanted, mode=RESIZES[len(window)], align_corners=corners)[0]
    offsets = (
        place[:, None] - place + side - 1 for place, side in zip(_positions(window, table.device), window, strict=True)
    )
    return table[(slice(None), *offsets)]


def reference_window_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    window: Sides,
    shift: Sides | None = None,
    bias: Tensor | None = None,
    masked: bool = True,
    scale: float | None = None,
) -> Tensor:
    """The same from the coordinates of every pair of positions, float64."""
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    shift = (0,) * len(window) if shift is None else shift
    size = tuple(q.shape[1:-2])
    padded = [-(-n // w) * w for n, w in zip(size, window, strict=True)]
    at = [(at - s) % n for at, s, n in zip(_positions(size, q.device), shift, padded, strict=True)]
    same = torch.ones(math.prod(size), math.prod(size), dtype=torch.bool)
    within = torch.zeros(math.prod(size), dtype=torch.long)
    for moved, w, s, n in zip(at, window, shift, padded, strict=True):
        same &= moved[:, None] // w == moved // w
        if masked:
            same &= (moved[:, None] >= n - s) == (moved >= n - s)
        within = within * w + moved % w
    q, k, v = (x.double().flatten(1, -3) for x in (q, k, v))
    scores = torch.einsum("bnhd,bmhd->bhnm", q, k) * factor
    if bias is not None:
        scores = scores + bias.double()[:, within[:, None], within]
    weights = scores.masked_fill(~same, -torch.inf).softmax(-1)
    return torch.einsum("bhnm,bmhv->bnhv", weights, v).unflatten(1, size)


def _moved(x: Tensor, window: Sides, shift: Sides) -> Tensor:
    """Padded to whole windows, then rolled."""
    missing = [-n % w for n, w in zip(x.shape[1:-2], window, strict=True)]
    x = F.pad(x, (0, 0, 0, 0, *chain(*((0, n) for n in reversed(missing))))) if any(missing) else x
    return x.roll([-s for s in shift], tuple(range(1, x.ndim - 2))) if any(shift) else x


def _allowed(
    size: Sides, padded: Sides, window: Sides, shift: Sides, masked: bool, device: torch.device
) -> Tensor | None:
    """bool (W, P, P); None where every position of a window may see every other. Padding may see itself: its row is cut
    away in the end, and one that sees nothing has no softmax."""
    if size == padded and not (masked and any(shift)):
        return None
    ids, real = (
        torch.zeros(padded, dtype=torch.long, device=device),
        torch.ones(padded, dtype=torch.bool, device=device),
    )
    for axis, (n, m, s) in enumerate(zip(size, padded, shift, strict=True)):
        place = torch.arange(m, device=device)
        line = [1] * len(size)
        line[axis] = m
        ids = 2 * ids + (place >= m - s).reshape(line) * masked
        real = real & ((place + s) % m < n).reshape(line)
    ids, real = (into_windows(x[None, ..., None], window)[0, :, :, 0] for x in (ids, real))
    return (ids[:, :, None] == ids[:, None]) & (
        real[:, None] | torch.eye(ids.shape[1], dtype=torch.bool, device=device)
    )


def _positions(size: Sides, device: torch.device) -> tuple[Tensor, ...]:
    """Place along each axis of a grid's positions, row by row."""
    return torch.unravel_index(torch.arange(math.prod(size), device=device), size)


def _fill(size: Sides, window: Sides) -> bool:
    return (
        0 < len(size) == len(window) and min(window) > 0 and not any(n % w for n, w in zip(size, window, strict=True))
    )


def _by(sides: Sides) -> str:
    return " x ".join(map(str, sides))


def _check(q: Tensor, k: Tensor, v: Tensor, window: Sides, shift: Sides, bias: Tensor | None) -> None:
    axes = len(window)
    if q.ndim != axes + 3 or q.shape != k.shape or v.shape[:-1] != q.shape[:-1]:
        raise ConfigError(
            f"attention in windows of {_by(window)} takes q, k and v of shape (batch, rows, columns, heads, width), an "
            f"axis for each of the window's {axes}, not {tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}"
        )
    if (
        not axes
        or len(shift) != axes
        or min(window) < 1
        or not all(0 <= s < w for s, w in zip(shift, window, strict=True))
    ):
        raise ConfigError(f"a window has at least one row and column and is moved by less, not {window} by {shift}")
    check_one_type("window attention", q=q, k=k, v=v, bias=bias)
    places = math.prod(window)
    if bias is not None and tuple(bias.shape) != (q.shape[-2], places, places):
        raise ConfigError(
            f"the bias of these windows must have shape {(q.shape[-2], places, places)}, not {tuple(bias.shape)}"
        )
