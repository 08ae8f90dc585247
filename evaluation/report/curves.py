"""Which colour, dash and words each curve carries through plots, tables and timelines.

Six colours can be told apart at a glance. They go to our first curves and to the rivals that are nearest to them; every
other curve is grey until it is pointed at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

DASHES = ("", "6 3", "2 3", "8 3 2 3")
PEER_COLOURS = 4
COLOURED = 6
"""Most curves with a colour of their own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Style:
    """How one curve looks everywhere."""

    colour: str
    """A CSS value; the colours themselves differ between light and dark."""

    dash: str
    """Dashes of its line; curves of one kind share a colour and differ in these."""

    ours: bool
    """Drawn heavier, and named first."""

    rest: bool = False
    """Grey until it is pointed at, and without a name until then."""


def styles(results: dict[str, Any]) -> dict[str, Style]:
    """A style for every curve, in the order of the contenders."""
    chosen: dict[str, Style] = {}
    coloured = foremost(results)
    seen: dict[str, int] = {}
    for contender in results["contenders"]:
        curve, kind = contender["curve"], contender["kind"]
        if curve in chosen:
            continue
        ours = results["kinds"][kind]["ours"]
        rest = kind not in REFERENCES and curve not in coloured
        group = "rest" if rest else kind
        place = seen.get(group, 0)
        seen[group] = place + 1
        if rest:
            colour, dash = "var(--rest)", DASHES[place % len(DASHES)]
        elif kind == "peer":
            colour, dash = f"var(--peer-{place % PEER_COLOURS})", DASHES[place // PEER_COLOURS % len(DASHES)]
        else:
            colour, dash = f"var(--{kind.replace('+', '-')})", DASHES[place % len(DASHES)]
        chosen[curve] = Style(colour=colour, dash=dash, ours=ours, rest=rest)
    return chosen


REFERENCES = ("plain", "converged")


def foremost(results: dict[str, Any]) -> set[str]:
    """The curves with a colour: all where there are few; else two of ours, one of every own kind of rival, and the best
    peers where the study looks; those asked for by name come first."""
    kind_of: dict[str, str] = {}
    asked = []
    for contender in results["contenders"]:
        if contender["kind"] not in REFERENCES:
            kind_of.setdefault(contender["curve"], contender["kind"])
            if contender.get("shown"):
                asked.append(contender["curve"])
    if len(kind_of) <= COLOURED:
        return set(kind_of)
    study = results["study"]
    at_target: dict[str, float] = {}
    for cell in results["cells"].get(study["plain"], []):
        if cell["quality"] and abs(cell["speedup"] - study["target"]) < 1e-9:
            at_target[cell["curve"]] = cell["quality"]["value"]
    first: dict[str, str] = {}
    for curve, kind in kind_of.items():
        first.setdefault(kind, curve)
    ours = [curve for kind, curve in first.items() if results["kinds"][kind]["ours"]]
    own = [curve for kind, curve in first.items() if not results["kinds"][kind]["ours"] and kind != "peer"]
    peers = sorted((c for c, kind in kind_of.items() if kind == "peer"), key=lambda c: -at_target.get(c, float("-inf")))
    ranked = dict.fromkeys([*asked, *ours[:2], *own[:3], *peers[:1], *ours[2:], *peers[1:], *own[3:], *kind_of])
    return set(list(ranked)[:COLOURED])
