"""Other people's caches, as contenders: one small file each, listed here."""

from . import first_block_cache, taylor_seer
from .peer import PEERS, Peer

__all__ = ["PEERS", "Peer", "first_block_cache", "taylor_seer"]
