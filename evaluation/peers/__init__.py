"""Other people's caches, as contenders: one small file each, listed here."""

from . import (
    cache_dit,
    easy_cache,
    faster_cache,
    first_block_cache,
    mag_cache,
    mean_cache,
    pyramid_attention_broadcast,
    sea_cache,
    spectrum,
    taylor_seer,
    tea_cache,
)
from .peer import PEERS, Peer

__all__ = [
    "PEERS",
    "Peer",
    "cache_dit",
    "easy_cache",
    "faster_cache",
    "first_block_cache",
    "mag_cache",
    "mean_cache",
    "pyramid_attention_broadcast",
    "sea_cache",
    "spectrum",
    "taylor_seer",
    "tea_cache",
]
