"""Radial: the further away in time, the smaller the neighbourhood in space that is kept.

Source: Radial Attention (Li et al., 2025, arXiv:2506.19852): attention falls exponentially with the distance in space
and time, and the kept width halves whenever the distance in time doubles. Differs from the paper: distances in space
are taken in the plane and not along the order of the tokens, and the first frame is no sink.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .pattern import PATTERNS, Pattern, Places

if TYPE_CHECKING:
    from torch import Tensor


def shrinking(places: Places) -> Tensor:
    """The width at the queries' own time whose shrunken neighbourhood reaches the keys: (R, C).

    Blocks at one place differ in time only; the nearer frame is kept first.
    """
    in_time, in_space = places.apart[..., 0], places.apart[..., 1:].norm(dim=-1)
    halvings = in_time.clamp_min(1.0).log2().floor()
    return (in_space + 1.0) * 2.0**halvings + in_time / (places.grid[0] + 1.0)


PATTERNS.add("radial", Pattern(label="radial", distances=(shrinking,)))
