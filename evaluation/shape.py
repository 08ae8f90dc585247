"""The shape of results.json, checked once where it is read: what is missing or of another kind is named by its place.

A page, a table or a difference may then take what it needs. The numbers inside a section are held by its builder; where
one of those was edited away, `readable_results` says so too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..errors import InputError

NUMBER, TEXT, FLAG, ANY = "a number", "a text", "true or false", "anything"
_KINDS: dict[str, tuple[type, ...]] = {NUMBER: (int, float), TEXT: (str,), FLAG: (bool,), ANY: (object,)}


@dataclass(frozen=True, slots=True)
class Maybe:
    """What may be null."""

    of: Any


@dataclass(frozen=True, slots=True)
class Each:
    """An object whose values all have one shape, whatever their keys."""

    of: Any


_MEAN = Maybe({"value": NUMBER, "low": Maybe(NUMBER), "high": Maybe(NUMBER)})
_SPEED = Maybe({"value": NUMBER, "low": NUMBER, "high": NUMBER})
_SAMPLE = {"index": NUMBER, "blocks": NUMBER, "metrics": Each(Each(Maybe(NUMBER))), "checks": Maybe(Each(NUMBER))}
_RAN = {
    "samples": [_SAMPLE],
    "blocks": NUMBER,
    "speedup": _SPEED,
    "metrics": Each(Each(_MEAN)),
    "checks": Each(_MEAN),
    "time": Maybe({"pairs": [{"plain": {"wall": NUMBER}, "contender": {"wall": NUMBER}}]}),
    "timeline": [{"step": NUMBER, "branch": TEXT, "computed": NUMBER}],
    "worst": Each(Maybe(NUMBER)),
    "front": Each(FLAG),
    "beaten_by": Each([TEXT]),
}  # fmt: skip
_CONTENDER = {
    "name": TEXT,
    "label": TEXT,
    "kind": TEXT,
    "curve": TEXT,
    "steps": NUMBER,
    "settings": Each(ANY),
    "error": Maybe(TEXT),
}
_COMPARISON = {
    "made": TEXT,
    "command": TEXT,
    "pipeline": {"name": TEXT, "class": TEXT, "kind": TEXT, "steps": NUMBER},
    "environment": Each(ANY),
    "study": {
        "plain": TEXT,
        "converged": Maybe(TEXT),
        "references": [TEXT],
        "samples": NUMBER,
        "batch": NUMBER,
        "timed": NUMBER,
        "target": NUMBER,
        "headline": TEXT,
    },
    "metrics": Each({"label": TEXT, "kind": TEXT, "unit": TEXT, "better": TEXT}),
    "kinds": Each({"label": TEXT, "ours": FLAG}),
    "requests": [{"index": NUMBER, "prompt": ANY, "seed": NUMBER}],
    "contenders": [_CONTENDER],
    "speedups": [NUMBER],
    "cells": Each(ANY),
}
_CALIBRATION = {
    "ways": Each(TEXT),
    "corruptions": [TEXT],
    "seeds": [NUMBER],
    "cells": Each(Each(Each([NUMBER]))),
    "bins": Each([[NUMBER]]),
}
_WORDS = {dict: "an object", list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}


def check_results(results: Any, *, calibration: bool = False) -> None:
    """Raises: InputError naming the first place where `results` is not as `build_results` makes it."""
    check(results, _CALIBRATION if calibration else _COMPARISON, "")
    if calibration:
        return
    names = [entry["name"] for entry in results["contenders"]]
    for place, entry in enumerate(results["contenders"]):
        if entry["error"] is None:
            check(entry, _RAN, f"contenders[{place}]")
        if entry["kind"] not in results["kinds"]:
            raise InputError(f"contenders[{place}].kind is '{entry['kind']}', which is not among its kinds")
    study = results["study"]
    for name in {study["plain"], *study["references"]} - set(names):
        raise InputError(f"its reference '{name}' is not among its contenders")
    for name in study["references"]:
        if results["contenders"][names.index(name)]["error"] is not None:
            raise InputError(f"its reference '{name}' has failed")
    if study["headline"] not in results["metrics"]:
        raise InputError(f"study.headline is '{study['headline']}', which is not among its metrics")


def check(value: Any, shape: Any, place: str) -> None:
    """Raises: InputError where `value`, which stands at `place`, has not this shape."""
    if isinstance(shape, Maybe):
        if value is not None:
            check(value, shape.of, place)
    elif isinstance(shape, list):
        _expect(value, list, place)
        for index, item in enumerate(value):
            check(item, shape[0], f"{place}[{index}]")
    elif isinstance(shape, Each):
        _expect(value, dict, place)
        for key, item in value.items():
            check(item, shape.of, f"{place}.{key}".lstrip("."))
    elif isinstance(shape, Mapping):
        _expect(value, dict, place)
        for key, part in shape.items():
            where = f"{place}.{key}".lstrip(".")
            if key not in value and not isinstance(part, Maybe):
                raise InputError(f"'{where}' is missing")
            check(value.get(key), part, where)
    elif not isinstance(value, _KINDS[shape]) or (shape == NUMBER and isinstance(value, bool)):
        raise InputError(f"'{place}' is {_told(value)}, not {shape}")


def _expect(value: Any, kind: type, place: str) -> None:
    if not isinstance(value, kind):
        raise InputError(f"'{place or 'the whole'}' is {_told(value)}, not {_WORDS[kind]}")


def _told(value: Any) -> str:
    return "null" if value is None else _WORDS.get(type(value), type(value).__name__)


@contextmanager
def readable_results(what: str) -> Iterator[None]:
    """While results that were read from `what` are used: an entry that was edited away becomes a line that says so.

    Raises: InputError.
    """
    try:
        yield
    except (KeyError, TypeError, IndexError, AttributeError, ZeroDivisionError, StopIteration) as error:
        missing = f"has no entry {error}" if isinstance(error, KeyError) else f"has an entry of another kind ({error})"
        raise InputError(f"{what} {missing}; was it edited? Make it again with 'outpace compare'") from error
