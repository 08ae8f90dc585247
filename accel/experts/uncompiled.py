"""What torch.compile passes over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch

Function = TypeVar("Function", bound=Callable[..., Any])


def uncompiled(function: Function) -> Function:
    """`function`, run as it is inside of compiled blocks: what it does depends on values."""
    return cast("Function", torch.compiler.disable(function))
