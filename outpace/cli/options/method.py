"""`--method` on the command line: `NAME`, `NAME:KEY=VALUE,KEY=VALUE`, or settings alone for the default method."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from outpace.errors import InputError

if TYPE_CHECKING:
    from outpace.accel import Method

DEFAULT_METHOD = "gated_taylor"
"""The method that settings without a name belong to: `--method threshold=0.2`."""

_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False, "none": None, "null": None}


def literal(text: str) -> Any:
    """The value that `text` spells: a whole number, a number, true/false, none, several numbers, or the text itself.

    >>> literal("2"), literal("0.5"), literal("true"), literal("none"), literal("0.1/0.5"), literal("budget")
    (2, 0.5, True, None, (0.1, 0.5), 'budget')
    """
    word = text.strip()
    if word.lower() in _WORDS:
        return _WORDS[word.lower()]
    for read in (int, float, _numbers):
        try:
            return read(word)
        except ValueError:
            continue
    return word


def _numbers(word: str) -> tuple[float, ...]:
    """Numbers joined by slashes. Raises: ValueError where it is anything else."""
    return tuple(float(part) for part in word.split("/"))


def split_method(text: str) -> tuple[str, dict[str, Any]]:
    """The name and the settings that `text` spells, unchecked.

    >>> split_method("solver:solver=unipc"), split_method("threshold=0.2,order=1")
    (('solver', {'solver': 'unipc'}), ('gated_taylor', {'threshold': 0.2, 'order': 1}))

    Raises: InputError where it is not of that form.
    """
    name, _, rest = text.partition(":")
    if "=" in name:
        name, rest = DEFAULT_METHOD, text
    name = name.strip()
    settings: dict[str, Any] = {}
    for part in rest.split(",") if rest.strip() else []:
        key, _, value = part.partition("=")
        if not key.strip() or not value.strip():
            raise InputError(
                f"cannot read '{part.strip()}' in --method '{text}'; write --method NAME:KEY=VALUE,KEY=VALUE "
                "('outpace methods' lists names and settings)"
            )
        if key.strip() in settings:
            raise InputError(f"--method '{text}' sets '{key.strip()}' twice; keep one")
        settings[key.strip()] = literal(value)
    if not name:
        raise InputError(f"--method '{text}' names no method ('outpace methods' lists them)")
    return name, settings


def parse_method(text: str) -> Method:
    """The method that `text` spells, its settings checked.

    Raises: InputError where it is not of that form; UnknownNameError for an unknown method; ConfigError for an unknown
        setting or one out of its range.
    """
    from outpace.accel import METHODS

    name, settings = split_method(text)
    return METHODS[name].from_dict({"method": name, **settings})


def split_combination(text: str) -> list[str]:
    """The methods that `text` joins with "+", each as it would stand alone.

    >>> split_combination("threshold=0.2 + adaspa:recall=0.9"), split_combination("solver:solver=dpm+++adaspa")
    (['threshold=0.2', 'adaspa:recall=0.9'], ['solver:solver=dpm++', 'adaspa'])
    """
    # A plus parts methods where a name follows, so that those in "dpm++" and "1e+3" stay.
    return [part.strip() for part in re.split(r"\+(?=\s*[A-Za-z_]\w*\s*(?:[:=+]|$))", text)]


def parse_combination(text: str) -> list[Method]:
    """The methods that `text` joins with "+". Raises: as `parse_method`, and ConflictError where they exclude each
    other.
    """
    from outpace.accel.methods import check_combination

    methods = [parse_method(part) for part in split_combination(text)]
    check_combination(methods)
    return methods


def spell_combination(methods: Sequence[Method]) -> str:
    """What `parse_combination` reads as `methods`: "gated_taylor:threshold=0.2+adaspa:recall=0.9"."""
    words = []
    for method in methods:
        settings = {k: v for k, v in method.to_dict().items() if k not in ("method", "version")}
        spelt = ",".join(
            f"{key}={'/'.join(map(str, value)) if isinstance(value, tuple) else value}"
            for key, value in settings.items()
        )
        words.append(f"{method.name}:{spelt}" if spelt else method.name)
    return "+".join(words)
