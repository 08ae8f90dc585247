"""What a combination of methods is called: its kind, its name in a file, and its label for people.

Of several that differ in one setting only, that setting is found, so that they become the points of one curve.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from outpace.accel import AdaSpa, GatedTaylor, IntervalTaylor, ScheduledTaylor, StaticSparsity

if TYPE_CHECKING:
    from outpace.accel import Method

Place = tuple[str, str]
"""A method's name and one of its settings."""

PLACES = ("attention", "bricks", "forecast", "solver")
"""The order in which labels tell what is on top of what."""

NAMES = {
    "gated_taylor": "gated",
    "interval_taylor": "interval",
    "scheduled_taylor": "scheduled",
    "adaspa": "AdaSpa",
    "solver": "second-order solver",
    "static_sparsity": "static",
}

UNSAID = {("scheduled_taylor", "levels"): "calibrated", ("adaspa", "schedule"): "calibrated"}
"""Settings whose values would fill a page, and the word that stands for them."""

LONGEST = 100
"""Characters of a file name and of a value in a label; what is longer ends in a digest."""


def kind_of(methods: Sequence[Method]) -> str:
    """The kind of contender that a combination of methods is."""
    names = {method.name for method in methods}
    if "adaspa" in names:
        under = [kind for name, kind in (("gated_taylor", "gated"), ("scheduled_taylor", "scheduled")) if name in names]
        return "+".join([*under, "sparse"])
    if "static_sparsity" in names:
        return "sparse-static" if len(names) == 1 else "combination"
    if "bricks" in names:
        return "bricks" if len(names) == 1 else "combination"
    for method, kind in (("scheduled_taylor", "scheduled"), ("gated_taylor", "gated")):
        if method in names:
            return f"{kind}+solver" if "solver" in names else kind
    return "interval" if "interval_taylor" in names else "solver"


def file_name(text: str) -> str:
    """What was asked for, fit for a file name and still unique."""
    return cut(re.sub(r"[^A-Za-z0-9@.+_-]+", "-", text).strip("-"))


def cut(text: str) -> str:
    """`text`, or its beginning with a digest of the whole where it is long."""
    if len(text) <= LONGEST:
        return text
    return f"{text[: LONGEST - 11]}...{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def known_by(method: Method) -> tuple[str, Any] | None:
    """The setting that a method goes by, with its value, whether it was given or not."""
    if isinstance(method, AdaSpa):
        return ("schedule", method.schedule) if method.schedule else (method.target.name, method.target.value)
    if isinstance(method, StaticSparsity):
        return "density", method.density
    if isinstance(method, GatedTaylor):
        return "threshold", method.threshold
    if isinstance(method, ScheduledTaylor):
        return "speedup", method.speedup
    return ("interval", method.interval) if isinstance(method, IntervalTaylor) else None


def settings_of(methods: Sequence[Method]) -> dict[Place, Any]:
    """The settings of a combination that differ from the defaults, first the one that each method goes by."""
    found: dict[Place, Any] = {}
    for method in methods:
        known = known_by(method)
        if known:
            found[method.name, known[0]] = known[1]
        given = {(method.name, k): v for k, v in method.to_dict().items() if k not in ("method", "version")}
        found |= {place: value for place, value in given.items() if place not in found}
    return found


def shared_settings(asked: Sequence[Sequence[Method]]) -> set[Place]:
    """Settings that tell none of the combinations apart, so that labels need not repeat them."""
    held: dict[Place, list[Any]] = {}
    users: dict[str, int] = {}
    for methods in asked:
        for place, value in settings_of(methods).items():
            held.setdefault(place, []).append(value)
        for method in methods:
            users[method.name] = users.get(method.name, 0) + 1
    known = {(m.name, by[0]) for methods in asked for m in methods if (by := known_by(m))}
    return {
        place
        for place, values in held.items()
        if place not in known and len(values) == users[place[0]] > 1 and all(value == values[0] for value in values)
    }


def label_of(methods: Sequence[Method], *, without: Collection[Place] = (), varied: Place | None = None) -> str:
    """A combination for people: "AdaSpa, recall 0.9 on gated 0.2".

    Args:
        without: settings not to speak of.
        varied: the setting whose value is not told, for the name of a curve.
    """
    settings = settings_of(methods)
    words = []
    for method in sorted(methods, key=lambda m: PLACES.index(m.place)):
        name, known = NAMES.get(method.name, method.name), known_by(method)
        parts = []
        for place, value in settings.items():
            if place[0] != method.name or place in without:
                continue
            # A forecast goes by its one number; a target of attention needs its name.
            key = "" if known and place[1] == known[0] and method.place != "attention" else place[1]
            told = " ".join(filter(None, (key, "" if place == varied else worded(value))))
            parts.append(UNSAID.get(place, told))
        if parts and parts[0][:1].isdecimal():
            name = f"{name} {parts.pop(0)}"
        words.append(", ".join([name, *filter(None, parts)]))
    return " on ".join(words)


def worded(value: Any) -> str:
    """A setting's value in a label."""
    if isinstance(value, (tuple, list)):
        return "/".join(map(worded, value))
    return f"{value:g}" if isinstance(value, float) else cut(str(value))


def varied_settings(asked: Sequence[Sequence[Method]]) -> list[Place | None]:
    """The setting that varies along the curve of each combination; None where there is no other to form one with.

    It is the one whose values tell the most combinations of the same settings apart.
    """
    settings = [settings_of(methods) for methods in asked]
    varied = []
    for own in settings:
        alike = [other for other in settings if set(other) == set(own)]

        def together(place: Place, own: dict[Place, Any] = own, alike: list[dict[Place, Any]] = alike) -> int:
            return sum(all(other[p] == own[p] for p in own if p != place) for other in alike)

        best = max(own, key=together, default=None)
        varied.append(best if best and together(best) > 1 else None)
    return varied
