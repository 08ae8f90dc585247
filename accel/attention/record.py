"""What block-sparse attention did: searches with their recall, calls by kind, drift. Part of a trace."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from statistics import mean
from typing import Any

LISTED = 20_000
"""Searches, and calls whose pattern was watched, that are listed at most."""


@dataclass(slots=True, kw_only=True)
class Search:
    """One search of one layer, for one row of the batch. Lists hold one entry a head."""

    run: int
    step: int
    branch: str
    denoiser: str
    layer: str
    row: int
    cause: str
    """"schedule" or "drift"."""
    density: list[float]
    """Share of the blocks kept."""
    recall: list[float] | None
    """Share of the attention mass kept; None where the normaliser was an old one, which ranks but does not measure."""
    least_recall: list[float] | None
    """That of the block of queries with the least."""
    error: list[float] | None
    """Relative L2 error of the output, where it was measured (error mode), before heads above the bound got more."""
    kept: bool
    """False where so little could be left out that the layer stays dense."""
    bytes: int
    """Memory of the index."""


@dataclass(slots=True, kw_only=True)
class Drift:
    """How well the pattern of a layer fitted at one sparse call after its search."""

    run: int
    step: int
    branch: str
    layer: str
    row: int
    drift: float
    """Mean change of the sparse normaliser's logarithm since the first sparse call after the search."""
    recall: float | None
    """Share of the mass kept, mean over the heads, of some queries that were attended to densely too."""
    least_recall: float | None = None
    """That of the head with the least."""


@dataclass(slots=True)
class AttentionRecord:
    """The attention of a handle's life."""

    layers: list[str] = field(default_factory=list)
    """Every layer that can be made sparse, in order."""
    heads: int = 0
    tokens: int = 0
    share: float = 0.0
    """Share of a block's floating-point operations that its dense self-attention takes, mean over the layers seen."""
    calls: Counter[str] = field(default_factory=Counter)
    """Calls of a layer by what ran: "dense", "mass", "sparse", "fallback"; a search is a "dense" and a "mass" or a
    "mass" and a "sparse". Each row of the batch counts."""
    work: float = 0.0
    """Attention blocks computed, mass passes counted half, in units of a dense call of a row."""
    searches: list[Search] = field(default_factory=list)
    drifts: list[Drift] = field(default_factory=list)
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Seconds by what ran, on a CPU only: an accelerator is not waited for."""
    clocked: Counter[str] = field(default_factory=Counter)
    """How many calls those seconds are of; dense ones outside searches run untouched, and are not clocked."""
    backends: dict[str, str] = field(default_factory=dict)
    """Operation -> implementation chosen."""

    def note(self, kind: str, rows: int, work: float | None = None) -> None:
        """Count a call; its work is that of a dense one unless given."""
        self.calls[kind] += rows
        self.work += rows if work is None else work

    def clock(self, kind: str, begin: float, device: str, rows: int) -> None:
        """Count the time since `begin` (of time.perf_counter), on a CPU."""
        if device == "cpu":
            self.seconds[kind] += time.perf_counter() - begin
            self.clocked[kind] += rows

    def bound(self) -> None:
        """Of a long life keep the newest entries only."""
        for held in (self.searches, self.drifts):
            if len(held) > LISTED:
                del held[: LISTED // 2]

    def clear(self) -> None:
        for held in (self.calls, self.searches, self.drifts, self.seconds, self.clocked):
            held.clear()
        self.work = 0.0

    def totals(self) -> dict[str, Any]:
        """Means over everything recorded."""
        kept = [s for s in self.searches if s.kept]
        recalls = [s.recall for s in kept if s.recall is not None]
        later = [d.recall for d in self.drifts if d.recall is not None]
        attended = self.calls["dense"] + self.calls["sparse"] + self.calls["fallback"]
        return {
            "calls": dict(self.calls),
            "searches": len(self.searches),
            "searches_for_drift": sum(s.cause == "drift" for s in self.searches),
            "density": mean(mean(s.density) for s in kept) if kept else None,
            "recall": mean(mean(r) for r in recalls) if recalls else None,
            "least_recall": min(min(s.least_recall) for s in kept if s.least_recall is not None) if recalls else None,
            "drift": max((d.drift for d in self.drifts), default=None),
            "recall_later": mean(later) if later else None,
            "least_recall_later": min(later) if later else None,
            "work": self.work / attended if attended else None,
            "index_bytes": sum({(s.denoiser, s.layer, s.branch, s.row): s.bytes for s in self.searches}.values()),
        }

    def block_work(self) -> float:
        """Mean work of a block that runs, 1 for a dense one."""
        attended = self.calls["dense"] + self.calls["sparse"] + self.calls["fallback"]
        return 1.0 - self.share * (1.0 - self.work / attended) if attended else 1.0

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {
            "layers": self.layers,
            "heads": self.heads,
            "tokens": self.tokens,
            "share": self.share,
            "backends": dict(self.backends),
            "seconds": dict(self.seconds),
            "clocked": dict(self.clocked),
            "searches": [asdict(s) for s in self.searches],
            "drifts": [asdict(d) for d in self.drifts],
            "totals": self.totals(),
        }

    def lines(self) -> list[str]:
        """The record for a person."""
        totals = self.totals()
        if not self.calls:
            return ["  attention: none was seen that could be made sparse"]
        calls = totals["calls"]
        lines = [
            f"  attention over {self.tokens} tokens, {len(self.layers)} layers x {self.heads} heads: "
            + ", ".join(f"{name} {calls[name]}" for name in ("dense", "mass", "sparse", "fallback") if name in calls)
        ]
        if totals["density"] is not None:
            line = f"    kept {totals['density']:.0%} of the blocks"
            if totals["recall"] is not None:
                line += f" with {totals['recall']:.1%} of the mass (row with the least: {totals['least_recall']:.1%})"
            lines.append(f"{line}; {totals['work']:.0%} of the dense attention's work")
        dense = sum(not s.kept for s in self.searches)
        if dense:
            lines.append(
                f"    {dense} of {len(self.searches)} searches left their layer dense: too little to leave out"
            )
        if totals["drift"] is not None:
            line = "    in the sparse calls "
            if totals["recall_later"] is not None:
                line += f"{totals['recall_later']:.1%} of the mass (layer and step with the least: "
                line += f"{totals['least_recall_later']:.1%}), "
            line += f"drift up to {totals['drift']:.2g}; searches for either: {totals['searches_for_drift']}"
            lines.append(line)
        if totals["index_bytes"]:
            lines.append(f"    index: {totals['index_bytes'] / 1e6:.1f} MB")
        if self.seconds:
            total = sum(self.seconds.values())
            lines.append(
                "    time: "
                + ", ".join(
                    f"{k} {v:.2f} s ({v / total:.0%})"
                    for k, v in sorted(self.seconds.items(), key=lambda part: -part[1])
                )
            )
        return lines
