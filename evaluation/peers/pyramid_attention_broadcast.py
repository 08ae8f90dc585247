"""Pyramid Attention Broadcast of diffusers: compute attention every few steps, and hand out what it gave in between.

Source: Zhao et al., "Real-Time Video Generation with Pyramid Attention Broadcast", ICLR 2025, arXiv:2408.12588.
As diffusers 0.42 holds it, an attention layer has one memory: where guidance is two calls (Wan), each branch may be
handed what attention gave in the other.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from .peer import PEERS, Peer, cache_enabled, library_of


def apply(pipe: Any, *, spatial: int, cross: int) -> AbstractContextManager[Any]:
    """`pipe` with the cache on: self-attention every `spatial`-th call, cross-attention every `cross`-th.

    The time it is on, 100 to 800 of 1000, is its default.
    """
    config = library_of(pipe).PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=spatial,
        cross_attention_block_skip_range=cross,
        current_timestep_callback=lambda: pipe.current_timestep,
    )
    return cache_enabled(pipe, config)


PEERS.add(
    "pab",
    Peer(
        label="PAB",
        settings=tuple({"spatial": s, "cross": c} for s, c in ((2, 4), (3, 6), (4, 8), (6, 12))),
        apply=apply,
    ),
)
