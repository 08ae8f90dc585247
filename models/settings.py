"""Configurations of models as plain data and back: what JSON holds, with nested ones and tuples restored."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from ..errors import ConfigError, UnknownNameError
from ..registry import suggestion

Config = TypeVar("Config")
HELD: dict[Any, tuple[type, ...]] = {int: (int,), float: (int, float), bool: (bool,), str: (str,)}
"""What a field of each plain type takes."""


def to_data(config: Any) -> dict[str, Any]:
    """The fields of a configuration as JSON can hold them.

    >>> from .hybrid import HybridConfig
    >>> to_data(HybridConfig(layer_types=("gla", "full")))["attention"]["heads"]
    8
    """
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def from_data(kind: type[Config], data: Mapping[str, Any]) -> Config:
    """A configuration from such fields; those not given keep their defaults.

    Raises: UnknownNameError: a field that there is not. ConfigError: one that must be given, or of the wrong kind.

    >>> from .hybrid import HybridConfig
    >>> from_data(HybridConfig, {"layer_types": ["gla"], "attention": {"heads": 4}}).attention.heads
    4
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}  # pyright: ignore[reportArgumentType]
    for name in data:
        if name not in fields:
            raise UnknownNameError(f"{kind.__name__} has no '{name}'{suggestion(name, list(fields))}")
    missing = [
        name
        for name, field in fields.items()
        if name not in data and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{kind.__name__} needs {', '.join(missing)}")
    hints = get_type_hints(kind)
    try:
        return kind(**{name: _typed(value, hints[name]) for name, value in data.items()})
    except TypeError as error:
        raise ConfigError(f"{kind.__name__} cannot be made of {dict(data)}: {error}") from error


def changed(config: Config, changes: Mapping[str, Any]) -> Config:
    """A copy with other values of some fields; a nested configuration may be given by the fields that change.

    Raises: UnknownNameError: a field that there is not. ConfigError: values that cannot be.
    """
    merged = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}  # pyright: ignore[reportArgumentType]
    for name, value in changes.items():
        inner = merged.get(name)
        nested = dataclasses.is_dataclass(inner) and not isinstance(inner, type) and isinstance(value, Mapping)
        merged[name] = changed(inner, value) if nested else value
    return from_data(type(config), merged)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_data(value)
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _typed(value: Any, hint: Any) -> Any:
    """`value` as a field of this type holds it. Raises: TypeError: it does not."""
    if get_origin(hint) in (Union, types.UnionType):
        if value is None:
            return None
        hint = next(kind for kind in get_args(hint) if kind is not type(None))
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, Mapping):
        return from_data(hint, value)
    if get_origin(hint) is tuple:
        kinds = get_args(hint)
        if not isinstance(value, (list, tuple)):
            raise TypeError(f"{value!r} is no tuple")
        if len(kinds) == 2 and kinds[1] is Ellipsis:
            kinds = kinds[:1] * len(value)
        if len(kinds) != len(value):
            raise TypeError(f"{value!r} is not of length {len(kinds)}")
        return tuple(map(_typed, value, kinds))
    if hint in HELD and (not isinstance(value, HELD[hint]) or isinstance(value, bool) != (hint is bool)):
        raise TypeError(f"{value!r} is no {getattr(hint, '__name__', hint)}")
    return float(value) if hint is float else value
