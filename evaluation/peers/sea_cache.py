"""SeaCache of diffusers: skip while the filtered spectrum of the input to the blocks hardly changes.

Source: "SeaCache", CVPR 2026, arXiv:2602.18993. diffusers 0.42 has it for Wan and Cosmos 3; on
others it warns and computes everything, which the report says.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from ...errors import UnsupportedModelError
from .peer import PEERS, Peer, cache_enabled, library_of


def apply(pipe: Any, *, threshold: float) -> AbstractContextManager[Any]:
    """`pipe` with the cache on, its other settings as they come. One decision for a batch, so give it one sample.

    Raises: UnsupportedModelError where diffusers has no SeaCache yet.
    """
    library = library_of(pipe)
    if not hasattr(library, "SeaCacheConfig"):
        raise UnsupportedModelError(f"{library.__name__} {library.__version__} has no SeaCache; a newer one may")
    return cache_enabled(pipe, library.SeaCacheConfig(threshold=threshold))


PEERS.add(
    "seacache",
    Peer(
        label="SeaCache",
        settings=tuple({"threshold": t} for t in (0.05, 0.1, 0.15, 0.25, 0.4)),
        apply=apply,
        batch=1,
    ),
)
