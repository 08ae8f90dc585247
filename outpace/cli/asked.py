"""Contenders that are asked for one by one: `outpace compare --method adaspa:recall=0.9 --method threshold=0.2+adaspa`.

Those that differ in one setting only become the points of one curve.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from outpace.cli.method_option import parse_combination

if TYPE_CHECKING:
    from outpace.accel import Method
    from outpace.cli.answering import Bench
    from outpace.evaluation import Contender

Place = tuple[str, str]
"""A method's name and one of its settings."""

NAMES = {"gated_taylor": "gated", "interval_taylor": "interval", "adaspa": "AdaSpa", "solver": "second-order solver"}


def asked_contenders(bench: Bench, texts: Sequence[str], steps: int) -> list[Contender]:
    """One contender for each of `texts`, timed and shown whatever its speed-up.

    Raises: as `parse_combination`.
    """
    from outpace.cli.contenders import ours

    asked = {text.strip(): parse_combination(text) for text in texts}
    curves = curves_of(list(asked.values()))
    return [
        ours(bench, file_name(text), label_of(methods), kind_of(methods), curve, steps, *methods, shown=True)
        for (text, methods), curve in zip(asked.items(), curves, strict=True)
    ]


def kind_of(methods: Sequence[Method]) -> str:
    """The kind of contender that a combination of methods is."""
    names = {method.name for method in methods}
    if "adaspa" in names:
        return "gated+sparse" if "gated_taylor" in names else "sparse"
    if "gated_taylor" in names:
        return "gated+solver" if "solver" in names else "gated"
    return "interval" if "interval_taylor" in names else "solver"


def file_name(text: str) -> str:
    """What was asked for, fit for a file name and still unique."""
    return re.sub(r"[^A-Za-z0-9@.+_-]+", "-", text).strip("-")


def settings_of(methods: Sequence[Method]) -> dict[Place, Any]:
    """The settings of a combination that differ from the defaults, or the default that a method is known by."""
    found: dict[Place, Any] = {}
    for method in methods:
        found[method.name, ""] = True
        found |= {(method.name, k): v for k, v in method.to_dict().items() if k not in ("method", "version")}
        if method.name == "gated_taylor":
            found[method.name, "threshold"] = method.threshold  # pyright: ignore[reportAttributeAccessIssue]
        elif method.name == "adaspa":
            found[method.name, method.target.name] = method.target.value  # pyright: ignore[reportAttributeAccessIssue]
    return found


def label_of(methods: Sequence[Method], without: Place | None = None) -> str:
    """A combination for people: "AdaSpa, recall 0.9 on gated, threshold 0.2"; without the value of one setting."""
    settings = settings_of(methods)
    words = []
    for method in sorted(methods, key=lambda m: ("attention", "forecast", "solver").index(m.place)):
        name = NAMES.get(method.name, method.name)
        parts = [
            key if (name_, key) == without else f"{key} {worded(value)}"
            for (name_, key), value in settings.items()
            if name_ == method.name and key
        ]
        words.append(", ".join([name, *parts]))
    return " on ".join(words)


def worded(value: Any) -> str:
    """A setting's value in a label."""
    if isinstance(value, (tuple, list)):
        return "/".join(map(worded, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def curves_of(asked: Sequence[Sequence[Method]]) -> list[str]:
    """The curve of each combination: combinations with the same settings but for the values of one share one.

    Which one that is, is the setting whose values tell the most of them apart.
    """
    settings = [settings_of(methods) for methods in asked]
    curves = []
    for own, methods in zip(settings, asked, strict=True):
        alike = [other for other in settings if set(other) == set(own)]

        def together(place: Place, own: dict[Place, Any] = own, alike: list[dict[Place, Any]] = alike) -> int:
            return sum(all(other[p] == own[p] for p in own if p != place) for other in alike)

        varied = max((place for place in own if place[1]), key=together, default=None)
        curves.append(label_of(methods, without=varied))
    return curves
