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
        self._before, self._removed = owner.__dict__.get(name), False
        # What another tap holds in its attributes is not copied.
        functools.update_wrapper(self, self.inner, updated=())
        setattr(owner, name, self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.around(self.inner, *args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return MethodType(getattr(type(self.owner), self.name), memo[id(self.owner)])

    def __reduce__(self) -> tuple[Any, ...]:
        # A pickled owner gets the plain method, as its copy does.
        return (getattr, (self.owner, self.name))

    def remove(self) -> None:
        """Leave the owner as it was found, unless someone else took the place since."""
        self._removed = True
        if self.owner.__dict__.get(self.name) is not self:
            return
        before = self._before
        while isinstance(before, Tap) and before._removed:
            before = before._before
        if before is None:
            del self.owner.__dict__[self.name]
        else:
            setattr(self.owner, self.name, before)
