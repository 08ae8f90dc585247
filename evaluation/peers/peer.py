"""What a peer is, and where peers register. To add one: a file beside this one, and its name in __init__."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from ...errors import UnsupportedModelError
from ...registry import Registry


@dataclass(frozen=True, kw_only=True, slots=True)
class Peer:
    """A cache that another library offers, at several settings."""

    label: str
    """Its name for people; the points of one peer are one curve."""

    settings: tuple[dict[str, Any], ...]
    """What it is tried with, each with one value changed."""

    apply: Callable[..., AbstractContextManager[Any]]
    """`apply(pipe, **settings)`: a context in which the pipeline runs with the cache, and leaves without it."""

    prepare: Callable[[Any, int, Callable[[], object]], dict[str, Any]] | None = None
    """`prepare(pipe, steps, run)`: what `apply` needs besides its settings, such as figures read off one run. Called
    once, before the first request; `run()` makes one sample of a prompt that is not among the requests."""

    batch: int = 64
    """Most requests at once; 1 where one decision is taken for a whole batch."""


PEERS: Registry[Peer] = Registry("peer")


def library_of(pipe: Any) -> Any:
    """The library that `pipe` comes from: its own caches are found there, so this room need not know it by name."""
    return import_module(type(pipe.transformer).__module__.partition(".")[0])


@contextmanager
def cache_enabled(pipe: Any, config: Any):
    """The pipeline with its library's cache `config` on.

    Raises: UnsupportedModelError where the transformer has no switch for caches.
    """
    transformer = pipe.transformer
    if not hasattr(transformer, "enable_cache"):
        library = library_of(pipe)
        raise UnsupportedModelError(
            f"{type(transformer).__name__} has no enable_cache in {library.__name__} {library.__version__}"
        )
    transformer.enable_cache(config)
    try:
        yield pipe
    finally:
        transformer.disable_cache()
