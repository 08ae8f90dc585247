"""Which colour, dash and words each curve carries through plots, tables and timelines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

DASHES = ("", "6 3", "2 3", "8 3 2 3")
PEER_COLOURS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Style:
    """How one curve looks everywhere."""

    colour: str
    """A CSS value; the colours themselves differ between light and dark."""

    dash: str
    """Dashes of its line; curves of one kind share a colour and differ in these."""

    ours: bool
    """Drawn heavier, and named first."""


def styles(results: dict[str, Any]) -> dict[str, Style]:
    """A style for every curve, in the order of the contenders."""
    chosen: dict[str, Style] = {}
    seen: dict[str, int] = {}
    for contender in results["contenders"]:
        curve, kind = contender["curve"], contender["kind"]
        if curve in chosen:
            continue
        place = seen.get(kind, 0)
        seen[kind] = place + 1
        if kind == "peer":
            colour, dash = f"var(--peer-{place % PEER_COLOURS})", DASHES[place // PEER_COLOURS % len(DASHES)]
        else:
            colour, dash = f"var(--{kind.replace('+', '-')})", DASHES[place % len(DASHES)]
        chosen[curve] = Style(colour=colour, dash=dash, ours=results["kinds"][kind]["ours"])
    return chosen
