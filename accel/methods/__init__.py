"""The methods: settings as frozen data, one file each, found by name through METHODS."""

from __future__ import annotations

import dataclasses
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, get_type_hints

from ...errors import ConfigError, ConflictError
from ...registry import Registry, suggestion

if TYPE_CHECKING:
    from ..part import Part, Shared


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """Settings of one way to make a pipeline faster. Subclasses are registered in METHODS under their `name`."""

    name: ClassVar[str] = ""
    place: ClassVar[str] = ""
    """What it takes hold of ("forecast", "solver"): two methods of one place exclude each other. `part.PLACES` says in
    which order they come; a place of your own comes last, next to the block."""

    def part(self, shared: Shared) -> Part:
        """The method at work in one pipeline. Raises: ConfigError, ConflictError for what cannot be done here."""
        raise NotImplementedError(f"{type(self).__name__} makes no part")

    def to_dict(self) -> dict[str, Any]:
        """The settings that differ from the defaults, with the method's name and version: plain data."""
        changed = {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if f.default is dataclasses.MISSING or getattr(self, f.name) != f.default
        }
        return {"method": self.name, "version": 1, **changed}

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Method:
        """The method that `data` describes, as `to_dict` wrote it.

        Raises: UnknownNameError for an unknown method, ConfigError for an unknown setting or version.
        """
        settings = dict(data)
        if "method" not in settings:
            raise ConfigError(f"settings of a method need the key 'method'; have: {', '.join(METHODS)}")
        cls = METHODS[str(settings.pop("method"))]
        if settings.pop("version", 1) != 1:
            raise ConfigError(f"settings of '{cls.name}' have version {data['version']}; this outpace reads version 1")
        known = [f.name for f in dataclasses.fields(cls)]
        for name in settings:
            if name not in known:
                raise ConfigError(f"{cls.name} has no setting '{name}'{suggestion(name, known)}")
        return cls(**settings)


METHODS: Registry[type[Method]] = Registry("method")


def list_of_methods(given: Any) -> list[Method]:
    """What was given as methods, one or several. Raises: ConfigError where something else is among them."""
    methods = list(given) if isinstance(given, (list, tuple)) else [given]
    for method in methods:
        if not isinstance(method, Method):
            kind = f"the class {method.__name__}" if isinstance(method, type) else type(method).__name__
            raise ConfigError(
                f"a method is one of {', '.join(METHODS)} with its settings (outpace.METHODS), not {kind}"
            )
    return methods


def check_combination(methods: list[Method]) -> None:
    """Refuse methods that cannot work together, before anything is touched. Raises: ConflictError."""
    for i, first in enumerate(methods):
        for second in methods[i + 1 :]:
            if first.place == second.place:
                raise ConflictError(
                    f"{first.name} and {second.name} both take the {first.place} of a pipeline; give only one of them"
                )


def settings_help(cls: type[Method]) -> list[tuple[str, str, Any, str]]:
    """Every setting of a method: name, type, default, and the docstring under its field."""
    source = inspect.getsource(cls)
    hints = get_type_hints(cls)
    rows = []
    for field in dataclasses.fields(cls):
        after = source.split(f"\n    {field.name}:", 1)[1].split("\n", 1)[1].lstrip()
        text = " ".join(after.split('"""')[1].split()) if after.startswith('"""') else ""
        kind = hints[field.name]
        rows.append((field.name, getattr(kind, "__name__", None) or str(kind), field.default, text))
    return rows
