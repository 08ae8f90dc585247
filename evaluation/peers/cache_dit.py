"""cache-dit: its dual-block cache (first blocks as a gate, the rest's residual reused), alone and with forecasts.

Optional: `pip install "outpace[peers]"`. The settings are those its documents publish for one gate block: warm-up 4, at
most 4 skips in a row; the threshold varies.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from ...errors import MissingDependencyError
from .peer import PEERS, Peer

REPLACED = ("forward", "_is_patched")
"""What cache-dit 1.5 sets on some denoisers (FLUX) and leaves there."""


@contextmanager
def left_as_found(pipe: Any) -> Iterator[None]:
    """Undo what cache-dit 1.5 leaves behind: another forward, and children in another order.

    diffusers takes the first child for the first blocks, so that its caches would fail on this pipeline afterwards.
    """
    denoisers = [part for part in (pipe.transformer, getattr(pipe, "transformer_2", None)) if part is not None]
    found = [
        (
            {name: vars(part)[name] for name in REPLACED if name in vars(part)},
            [name for name, _ in part.named_children()],
        )
        for part in denoisers
    ]
    try:
        yield
    finally:
        for part, (had, order) in zip(denoisers, found, strict=True):
            for name in REPLACED:
                vars(part).pop(name, None)
            vars(part).update(had)
            children = vars(part)["_modules"]
            for name in order:
                children[name] = children.pop(name)


@contextmanager
def apply(pipe: Any, *, threshold: float, order: int = 0) -> Iterator[Any]:
    """`pipe` with DBCache on, forecast by its TaylorSeer of `order`, or reused for 0. One decision for a batch.

    Raises: MissingDependencyError where cache-dit is not installed.
    """
    if find_spec("cache_dit") is None:
        raise MissingDependencyError('cache-dit is not installed; add it with: pip install "outpace[peers]"')
    cache_dit: Any = import_module("cache_dit")
    config = cache_dit.DBCacheConfig(
        Fn_compute_blocks=1,
        Bn_compute_blocks=0,
        residual_diff_threshold=threshold,
        max_warmup_steps=4,
        max_continuous_cached_steps=4,
    )
    forecast = cache_dit.TaylorSeerCalibratorConfig(taylorseer_order=order) if order else None
    with left_as_found(pipe):
        cache_dit.enable_cache(pipe, cache_config=config, calibrator_config=forecast)
        try:
            yield pipe
        finally:
            cache_dit.disable_cache(pipe)


THRESHOLDS = tuple({"threshold": t} for t in (0.08, 0.12, 0.2, 0.24, 0.4))

PEERS.add("cache-dit", Peer(label="cache-dit", settings=THRESHOLDS, apply=apply, batch=1))
PEERS.add(
    "cache-dit-taylor",
    Peer(label="cache-dit, TaylorSeer", settings=THRESHOLDS, apply=partial(apply, order=1), batch=1),
)
