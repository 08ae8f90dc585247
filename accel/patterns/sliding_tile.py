"""Sliding tiles: a window of the video around every tile, in the proportions of the video.

Source: Sliding Tile Attention (Zhang et al., 2025, arXiv:2502.04507): tiles attend to whole tiles, and windows at the
border are moved inwards. Differs from the paper: one window for all heads, whose size follows from the density.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .pattern import PATTERNS, Pattern, Places

if TYPE_CHECKING:
    from torch import Tensor


def window(places: Places) -> Tensor:
    """The side of the smallest window around the queries, as a share of the video's, that reaches the keys: (R, C)."""
    return (places.apart / places.apart.new_tensor(places.grid)).amax(-1)


PATTERNS.add("sliding-tile", Pattern(label="sliding tiles", distances=(window,)))
