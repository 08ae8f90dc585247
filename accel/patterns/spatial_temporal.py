"""Spatial and temporal heads: some look around in their own frames, some at one place in all frames.

Source: Sparse VideoGen (Xi et al., 2025, arXiv:2502.01776): every head is one or the other, found online by what either
mask would do to some of its queries. Differs from the paper: heads are found once a search and not at every step, by
the mass that either keeps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .pattern import PATTERNS, Pattern, Places

if TYPE_CHECKING:
    from torch import Tensor


def frames(places: Places) -> Tensor:
    """Distance in time; at the same time, nearer places first: (R, C)."""
    return places.apart[..., 0] + in_plane(places) / (1.0 + in_plane(places).amax())


def places_in_frame(places: Places) -> Tensor:
    """Distance within the frame; at the same place, nearer frames first: (R, C)."""
    return in_plane(places) + places.apart[..., 0] / (1.0 + places.grid[0])


def in_plane(places: Places) -> Tensor:
    """Distance within the frame, whatever the time, (R, C)."""
    return places.apart[..., 1:].norm(dim=-1)


PATTERNS.add("spatial-temporal", Pattern(label="spatial and temporal heads", distances=(frames, places_in_frame)))
