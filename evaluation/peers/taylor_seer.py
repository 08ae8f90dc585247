"""TaylorSeer of diffusers: at fixed intervals, forecast every attention output, or (lite) the last projection.

Source: Liu et al., "From Reusable to Forecasting", 2025, arXiv:2503.06923. Differs from its defaults: factors are kept
in the pipeline's own precision, since bfloat16 factors in a float32 pipeline would handicap it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from .peer import PEERS, Peer, cache_enabled, library_of

INTERVALS = tuple({"interval": n} for n in (2, 3, 4, 5))


def apply(pipe: Any, *, interval: int, lite: bool = False) -> AbstractContextManager[Any]:
    """`pipe` with the cache on, order 1, the first three steps computed, every `interval`-th step after them."""
    config = library_of(pipe).TaylorSeerCacheConfig(
        cache_interval=interval,
        disable_cache_before_step=3,
        max_order=1,
        taylor_factors_dtype=pipe.transformer.dtype,
        use_lite_mode=lite,
    )
    return cache_enabled(pipe, config)


PEERS.add("taylorseer", Peer(label="TaylorSeer", settings=INTERVALS, apply=apply))
PEERS.add("taylorseer-lite", Peer(label="TaylorSeer lite", settings=INTERVALS, apply=partial(apply, lite=True)))
