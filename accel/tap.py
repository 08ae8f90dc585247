"""Something done around a method of one instance, never of its class, and undone without a trace."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import MethodType
from typing import Any


class Tap:
    """Calls `around(inner, *args, **kwargs)` in the place of `owner`'s method `name`, until `remove`.

    A deep copy of the owner gets the plain method.
    """

    def __init__(self, owner: Any, name: str, around: Callable[..., Any]) -> None:
        self.owner, self.name, self.around = owner, name, around
        self.inner = getattr(owner, name)
        functools.update_wrapper(self, self.inner)
        setattr(owner, name, self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.around(self.inner, *args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return MethodType(getattr(type(self.owner), self.name), memo[id(self.owner)])

    def remove(self) -> None:
        """Leave the owner as it was found, unless someone else took the place since."""
        if self.owner.__dict__.get(self.name) is self:
            del self.owner.__dict__[self.name]
