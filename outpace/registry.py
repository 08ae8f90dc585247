"""One generic registry: names to things, with a suggestion where a name is not known."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from .errors import ConfigError, UnknownNameError

T = TypeVar("T")
Registered = TypeVar("Registered")


def suggestion(name: str, known: list[str]) -> str:
    """The end of a message about an unknown `name`: the nearest known one, then all of them."""
    near = difflib.get_close_matches(name, known, n=1)
    return (f"; did you mean '{near[0]}'?" if near else "") + f" (have: {', '.join(known) or 'none'})"


class Registry(Generic[T]):
    """Names to things of one kind. Refuses to overwrite; suggests on a miss; iterates in order of registration.

    Args:
        kind: what is registered, in the singular, for messages ("method", "metric").

    >>> colours = Registry("colour")
    >>> _ = colours.add("red", 1)
    >>> colours["red"], list(colours)
    (1, ['red'])
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._items: dict[str, T] = {}

    def add(self, name: str, item: T) -> T:
        """Register `item` under `name`. Raises: ConfigError where the name is taken by another item."""
        if name in self._items and self._items[name] is not item:
            raise ConfigError(f"{self.kind} '{name}' is registered already; choose another name")
        self._items[name] = item
        return item

    def register(self, name: str) -> Callable[[Registered], Registered]:
        """A decorator that registers what it decorates, whose own type it keeps."""

        def decorate(item: Registered) -> Registered:
            self.add(name, item)  # pyright: ignore[reportArgumentType]
            return item

        return decorate

    def remove(self, name: str) -> None:
        """Forget `name`, for plug-ins and tests that clean up behind them."""
        self._items.pop(name, None)

    def __getitem__(self, name: str) -> T:
        if isinstance(name, str) and name in self._items:
            return self._items[name]
        raise UnknownNameError(f"no {self.kind} {str(name)!r}{suggestion(str(name), list(self._items))}")

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def items(self) -> list[tuple[str, T]]:
        return list(self._items.items())
