"""FasterCache of diffusers: reuse attention every other step, weighted by how it changed; guidance is left whole.

Source: Lv et al., "FasterCache: Training-Free Video Diffusion Model Acceleration with High Quality", ICLR 2025,
arXiv:2410.19355. Differs from the paper: its cache of the unguided branch expects both branches in one batch, which
none of the pipelines here does, so that only attention is reused.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from .peer import PEERS, Peer, cache_enabled, library_of


def apply(pipe: Any, *, interval: int, until: int) -> AbstractContextManager[Any]:
    """`pipe` with attention computed every `interval`-th call below timestep `until` of 1000."""
    config = library_of(pipe).FasterCacheConfig(
        spatial_attention_block_skip_range=interval,
        spatial_attention_timestep_skip_range=(-1, until),
        attention_weight_callback=lambda module: 0.5,
        is_guidance_distilled=True,
        current_timestep_callback=lambda: pipe.current_timestep,
    )
    return cache_enabled(pipe, config)


PEERS.add(
    "fastercache",
    Peer(
        label="FasterCache",
        settings=tuple({"interval": n, "until": 681} for n in (2, 3, 4, 6)),
        apply=apply,
    ),
)
