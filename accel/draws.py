"""Whether the steps of a scheduler draw random numbers, which is seen and not read off its name.

Two ways to look: at every operation that torch runs, or, at half the price, at the functions of torch that are called.
The second does not see into what was compiled or scripted, nor into functions that are written in Python; these are
looked at the first way.
"""

from __future__ import annotations

from types import FunctionType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

DRAWS = torch.Tag.nondeterministic_seeded
"""What torch marks the operations with that draw from a generator."""


OPERATORS = "torch._tensor"
"""Where methods of tensors are written in Python that only wrap an operation each, such as `1 - x`."""


class DrawsOfOperations(TorchDispatchMode):
    """Notices whether any operation inside it draws random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen |= DRAWS in func.tags
        return func(*args, **(kwargs or {}))


class DrawsOfFunctions(TorchFunctionMode):
    """Notices whether any function of torch that is called inside it draws random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        draws = _known.get(func)
        if draws is None:
            draws = _known[func] = can_draw(func)
        if draws:
            with DrawsOfOperations() as draws_inside:
                result = func(*args, **(kwargs or {}))
            self.seen |= draws_inside.seen
            return result
        return func(*args, **kwargs) if kwargs else func(*args)


_known: dict[Any, bool] = {}


def can_draw(func: Any) -> bool:
    """Whether a function of torch may draw: an operation of this name is marked so, or nobody knows what is inside."""
    if isinstance(func, FunctionType) and func.__module__ != OPERATORS:
        return True
    tags = getattr(func, "tags", None)
    if tags is not None:
        return DRAWS in tags
    packet = getattr(torch.ops.aten, getattr(func, "__name__", ""), None)
    overloads = packet.overloads() if packet is not None and hasattr(packet, "overloads") else ()
    return any(DRAWS in getattr(packet, name).tags for name in overloads)
