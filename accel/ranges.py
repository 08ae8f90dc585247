"""Checks of settings: each raises one clear ConfigError."""

from __future__ import annotations

import math
from typing import Any

from ..errors import ConfigError


def require(condition: bool, message: str) -> None:
    """Raise ConfigError(message) unless `condition` holds."""
    if not condition:
        raise ConfigError(message)


def number(name: str, value: Any, low: float, high: float = math.inf) -> None:
    """Raise ConfigError unless `value` is a real number in low..high."""
    ok = (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and math.isfinite(value)
        and low <= value <= high
    )
    require(ok, f"{name} must be a number {between(low, high)}, not {value!r}")


def whole(name: str, value: Any, low: int, high: float = math.inf) -> None:
    """Raise ConfigError unless `value` is a whole number in low..high."""
    ok = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
    require(ok, f"{name} must be a whole number {between(low, high)}, not {value!r}")


def between(low: float, high: float) -> str:
    return f">= {low:g}" if high == math.inf else f"from {low:g} to {high:g}"


def one_of(name: str, value: Any, known: tuple[str | int, ...]) -> None:
    """Raise ConfigError unless `value` is one of `known`."""
    require(value in known, f"{name} must be one of {', '.join(map(str, known))}, not {value!r}")
