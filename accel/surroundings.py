"""What others do to a pipeline that is accelerated: compile it, replace its transformer, put a cache on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from .adapters import held
from .denoiser import Denoiser

CACHES = (
    "faster_cache",
    "first_block_cache",
    "mag_cache",
    "pyramid_attention_broadcast",
    "sea_cache",
    "taylorseer_cache",
)
"""Modules of `diffusers.hooks` whose hooks leave out work."""


def caches_on(transformer: nn.Module) -> list[str]:
    """The caches of diffusers that are put on a transformer, by `enable_cache` or by a function `apply_...`."""
    found: set[str] = set()
    for module in transformer.modules():
        registry = held(module, "_diffusers_hook")
        if registry is not None:
            found |= {type(hook).__module__.rsplit(".", 1)[-1] for hook in getattr(registry, "hooks", {}).values()}
    return sorted(found & {*CACHES})


def cache_conflict(name: str, transformer: nn.Module) -> str:
    """Why a transformer cannot be accelerated beside a cache of diffusers; empty where it has none."""
    if getattr(transformer, "is_cache_enabled", False):
        return f"{name} has a diffusers cache enabled; call {name}.disable_cache() first"
    found = caches_on(transformer)
    if not found:
        return ""
    return (
        f"{name} has a cache of diffusers put on ({', '.join(found)}), and two caches spoil each other: take it off, "
        "or load the transformer again; `enable_cache` instead of `apply_...` makes one that `disable_cache` takes off"
    )


def look_around(target: Any, denoiser: Denoiser, warn: Callable[[str], None]) -> None:
    """Notice what happened to one transformer since it was accelerated; take back its call where it was compiled."""
    name, transformer = denoiser.name, denoiser.transformer
    held = transformer if isinstance(target, nn.Module) else getattr(target, name, transformer)
    compiled = getattr(held, "_orig_mod", None) is transformer and held is not transformer
    if held is not transformer and not compiled:
        warn(
            f"{name} was replaced by another after accelerate, so nothing is accelerated: "
            "restore() this handle and accelerate again"
        )
    if denoiser.take_back() or compiled:
        warn(
            f"{name} was compiled as a whole after accelerate, which would freeze its loop over blocks: it runs "
            "uncompiled; compile the blocks instead: transformer.compile_repeated_blocks(fullgraph=True)"
        )
    found = caches_on(transformer)
    denoiser.left_to = (
        f"{name} has a diffusers cache on ({', '.join(found)}), so everything is left to that" if found else ""
    )
