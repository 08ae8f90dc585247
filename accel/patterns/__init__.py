"""Static patterns of sparse attention, one file each, found by name through PATTERNS. None of them imports torch."""

from . import radial, sliding_tile, spatial_temporal  # noqa: F401  # they register themselves
from .pattern import PATTERNS, Pattern, Places

__all__ = ["PATTERNS", "Pattern", "Places"]
