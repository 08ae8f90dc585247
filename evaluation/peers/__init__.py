"""Other people's caches, as contenders: one small file each, listed here."""

from . import (
    cache_dit,
    faster_cache,
    first_block_cache,
    mag_cache,
    pyramid_attention_broadcast,
    sea_cache,
    taylor_seer,
)
from .peer import PEERS, Peer

__all__ = [
    "PEERS",
    "Peer",
    "cache_dit",
    "faster_cache",
    "first_block_cache",
    "mag_cache",
    "pyramid_attention_broadcast",
    "sea_cache",
    "taylor_seer",
]
