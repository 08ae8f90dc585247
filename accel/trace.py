"""What was decided, call by call: the one source of summaries, reports and tests."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import mean
from typing import Any

from .timing import Timings

LISTED = 20_000
"""Calls that are listed at most, some 13 MB; a server's handle lives for days."""

FEW_STEPS = 12
"""Runs this short may end before a gate has learnt what it can forecast."""

LEARNING = frozenset({"warm-up", "nothing measured", "last steps"})
"""Why a step is computed that a longer run would have forecast."""

LONGEST = 60
"""Characters of a setting's value in a line about it."""


@dataclass(slots=True, kw_only=True)
class Call:
    """One call of a denoiser. Lists hold one entry a sample; guidance rows batched in one tensor are one sample."""

    run: int
    step: int
    branch: str
    denoiser: str
    timestep: float
    sigma: float | None
    computed: list[bool]
    reason: list[str]
    error: list[float | None]
    """Relative L1 error that the gate measured of the first block's forecast, or expected of the last block's."""
    order: list[int | None]
    blocks: float
    """Blocks computed, summed over the samples; a forecast that ran the first block for its gate counts 1."""
    seconds: float = 0.0
    sparse: bool = False
    """True where attention was left out, or searched for what to leave out."""
    streams: dict[str, list[float | None]] = field(default_factory=dict)
    """The error of each stream apart, where more than one leaves the model, as a video and its sound do."""
    skipped: list[float] = field(default_factory=list)
    """Blocks that a schedule of bricks left out of each sample's call; empty where there is no schedule."""
    partial: list[int] = field(default_factory=list)
    """Blocks that were run of each sample that is forecast, in a step that computes a part; empty where none was."""


@dataclass(slots=True)
class Trace:
    """The calls of a handle's life, with what they add up to."""

    family: str
    blocks: int
    methods: list[dict[str, Any]]
    calls: list[Call] = field(default_factory=list)
    before: Counter[str] = field(default_factory=Counter)
    """What the calls that are no longer listed add up to."""
    warnings: list[str] = field(default_factory=list)
    parts: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Seconds by part: "first block", "other blocks", "gate and forecast", "correction", "embedding and head"."""
    timings: Timings = field(default_factory=Timings, repr=False)
    """What was marked in calls and has not been read yet; see `settle`."""

    attention: Any = None
    """What was left out of attention, where a method leaves out any."""

    reuse: Any = None
    """What was computed once a run, where a method sees to that."""

    def warn(self, message: str) -> None:
        """Keep `message` once."""
        if message not in self.warnings:
            self.warnings.append(message)

    @property
    def made(self) -> int:
        """Calls of the handle's life since `clear`: those that are listed and those before."""
        return int(self.before["calls"]) + len(self.calls)

    def add(self, call: Call) -> None:
        """Keep a call; of a long life only the newest stay listed, the others are counted."""
        self.calls.append(call)
        if len(self.calls) > LISTED:
            self.before += counted(self.calls[: LISTED // 2])
            del self.calls[: LISTED // 2]

    def since(self, made: int) -> list[Call]:
        """The calls after the first `made`, as far as they are listed."""
        return self.calls[max(0, made - int(self.before["calls"])) :]

    def settle(self) -> None:
        """Read the times of all calls so far, which a GPU is waited for; done by itself when a run is over."""
        self.timings.settle(self.parts)

    def clear(self) -> None:
        self.calls.clear()
        self.before.clear()
        self.parts.clear()
        self.timings.clear()
        for told in (self.attention, self.reuse):
            if told is not None:
                told.clear()

    def totals(self) -> dict[str, Any]:
        """Counts of the whole trace; speed-ups in blocks (predicted) and in seconds of denoiser calls (measured)."""
        self.settle()
        all_calls = self.before + counted(self.calls)
        samples, computed, blocks = int(all_calls["samples"]), int(all_calls["computed"]), all_calls["blocks"]
        plain = float(samples * self.blocks)
        work = blocks * (self.attention.block_work() if self.attention is not None else 1.0)
        # The first full call pays for allocations and caches of its own, so it is no yardstick for the others.
        plainly = [c for c in self.calls if c.computed and all(c.computed) and not c.sparse and not any(c.skipped)]
        full = [c.seconds / len(c.computed) for c in plainly][1:]
        spent = sum(c.seconds for c in self.calls[1:])
        listed = sum(len(c.computed) for c in self.calls[1:])
        measured = mean(full) * listed / spent if full and spent > 0 else None
        return {
            "calls": int(all_calls["calls"]),
            "samples": samples,
            "computed": computed,
            "forecast": samples - computed,
            "blocks": blocks,
            "blocks_plain": plain,
            "skipped": all_calls["skipped"],
            "predicted_speedup": plain / work if work else None,
            "measured_speedup": measured,
        }

    def as_dict(self) -> dict[str, Any]:
        """The trace as plain data, ready for JSON."""
        self.settle()
        return {
            "version": 1,
            "family": self.family,
            "blocks": self.blocks,
            "methods": self.methods,
            "warnings": list(self.warnings),
            "parts": dict(self.parts),
            "calls": [asdict(c) for c in self.calls],
            "totals": self.totals(),
            "attention": self.attention.as_dict() if self.attention is not None else None,
            "reuse": self.reuse.as_dict() if self.reuse is not None else None,
        }

    def summary(self) -> str:
        """The trace in a dozen lines for a person."""
        totals = self.totals()
        lines = [f"outpace on {self.family} ({self.blocks} blocks): " + (describe(self.methods) or "no method")]
        if not self.calls:
            return "\n".join([*lines, "  nothing has run yet", *(f"  note: {w}" for w in self.warnings)])
        lines.append(
            f"  {totals['forecast']} of {totals['samples']} denoiser calls forecast, {totals['computed']} computed"
            + (" (calls counted per sample)" if totals["samples"] != totals["calls"] else "")
        )
        if self.before:
            lines.append(f"    of the newest {len(self.calls)} calls, which are listed:")
        for branch in dict.fromkeys(c.branch for c in self.calls):
            calls = [c for c in self.calls if c.branch == branch]
            samples, done = sum(len(c.computed) for c in calls), sum(sum(c.computed) for c in calls)
            lines.append(f"    branch {branch}: {done} computed, {samples - done} forecast")
        most = max(len(c.computed) for c in self.calls)
        if most > 1:
            shares = []
            for sample in range(most):
                rows = [c.computed[sample] for c in self.calls if len(c.computed) > sample]
                shares.append(f"{sum(rows)}/{len(rows)}")
            lines.append("    computed per sample: " + ", ".join(shares))
        if any(c.skipped for c in self.calls):
            lines.append(self._bricks_line(totals))
        if self.attention is not None:
            lines += self.attention.lines()
        if self.reuse is not None:
            lines.append(self.reuse.line())
        reasons = Counter(r for c in self.calls for r, done in zip(c.reason, c.computed, strict=True) if done)
        lines.append("  computed because of: " + ", ".join(f"{r} {n}" for r, n in reasons.most_common()))
        errors = sorted(e for c in self.calls for e in c.error if e is not None)
        if errors:
            middle, worst = errors[len(errors) // 2], errors[-1]
            lines.append(f"  gate error: median {middle:.3g}, largest {worst:.3g} (at {len(errors)} questions)")
        for stream in dict.fromkeys(name for c in self.calls for name in c.streams):
            found = sorted(e for c in self.calls for e in c.streams.get(stream, ()) if e is not None)
            if found:
                lines.append(f"    {stream}: median {found[len(found) // 2]:.3g}, largest {found[-1]:.3g}")
        if self.parts:
            total = sum(self.parts.values())
            parts = sorted(self.parts.items(), key=lambda part: -part[1])
            lines.append("  time: " + ", ".join(f"{k} {v:.2f} s ({v / total:.0%})" for k, v in parts))
        of = "in blocks" if self.attention is None else "in operations"
        speed = f"  speed-up of the denoiser: {totals['predicted_speedup'] or 1.0:.2f}x {of}"
        if totals["measured_speedup"]:
            speed += f", {totals['measured_speedup']:.2f}x measured"
        lines.append(speed)
        if hint := self._few_steps():
            lines.append(f"  {hint}")
        return "\n".join([*lines, *(f"  note: {w}" for w in self.warnings)])

    def _few_steps(self) -> str:
        """Why nothing was forecast in a short run, and what does; empty where something was, or nobody wanted to."""
        last = [c for c in self.calls if c.run == self.calls[-1].run]
        steps = max(c.step for c in last) + 1
        reasons = {reason for c in last for reason in c.reason}
        if steps > FEW_STEPS or not reasons & LEARNING or reasons & {"forecast", "threshold 0"}:
            return ""
        if steps < 4:
            return f"{steps} steps: too few to forecast, none can be spared"
        return (
            f"{steps} steps: too few to forecast with these settings; try outpace.IntervalTaylor(interval=2, warmup=2, "
            "correct=True), which forecasts every other step"
        )

    def _bricks_line(self, totals: dict[str, Any]) -> str:
        reached = totals["computed"] * self.blocks
        if not totals["skipped"]:
            return "  bricks: none was left out; the schedule names no noise level of this run, or too few of its steps"
        return (
            f"  bricks: {totals['skipped']:g} of {reached} blocks left out ({totals['skipped'] / reached:.0%}) "
            "in the calls that were computed"
        )


def counted(calls: Sequence[Call]) -> Counter[str]:
    """What calls add up to."""
    return Counter(
        {
            "calls": len(calls),
            "samples": sum(len(c.computed) for c in calls),
            "computed": sum(sum(c.computed) for c in calls),
            "blocks": sum(c.blocks for c in calls),  # pyright: ignore[reportArgumentType]
            "skipped": sum(sum(c.skipped) for c in calls),
        }
    )


def describe(methods: list[dict[str, Any]]) -> str:
    """Methods in one line: names with the settings that were given, the long ones cut short."""
    return " + ".join(
        m["method"] + "(" + ", ".join(f"{k}={_short(v)}" for k, v in m.items() if k not in ("method", "version")) + ")"
        for m in methods
    )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
