"""First Block Cache of diffusers: reuse the last blocks' residual while the first block's residual hardly changes."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from .peer import PEERS, Peer, cache_enabled, library_of


def apply(pipe: Any, *, threshold: float) -> AbstractContextManager[Any]:
    """`pipe` with the cache on. Its gate is one number for a whole batch, so give it one sample at a time."""
    return cache_enabled(pipe, library_of(pipe).FirstBlockCacheConfig(threshold=threshold))


PEERS.add(
    "first-block-cache",
    Peer(
        label="FirstBlockCache",
        settings=tuple({"threshold": t} for t in (0.03, 0.06, 0.1, 0.15, 0.25)),
        apply=apply,
        batch=1,
    ),
)
