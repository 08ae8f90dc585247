"""Where ours stands beside the best rival: the table of README.md and the sentences under it, from committed results.

Ours is the first of our curves that a comparison ran: what is on by default. The best rival is whichever reaches the
highest mean PSNR at the same number of computed blocks, so that it may be another one in every row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

import numpy as np

from outpace.evaluation.pareto import at_quality, at_speedup

AIM = 2.5
"""Times fewer blocks at which comparisons are shown."""
GOAL = 1.25
"""Times faster than the best rival at an equal picture: what was set out for."""
HEADS = (
    "pipeline",
    "seconds, plain",
    "ours",
    "dB, mean (worst)",
    "calibrated",
    "fewer steps",
    "best rival",
    "for its picture",
    "shipped one: ours, rival",
)
SHOWN = (2.0, 2.5, 3.0, 4.0, 5.0)
ONLINE = "scheduled"
CALIBRATED = "scheduled-calibrated"
"""The kind of contender whose computed steps were placed on the pipeline itself."""
NEAR = 0.3
"""How far behind counts as level, in dB."""
MINIMUM = 2
"""Points that a curve needs to be read between."""

Point = tuple[float, float, float]
"""Speed-up, mean PSNR, worst PSNR."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """One comparison at AIM times fewer blocks."""

    name: str
    plain_seconds: float | None
    ours: str
    """The curve."""
    reached: tuple[float, float]
    """Mean and worst PSNR of ours."""
    gate: tuple[str, tuple[float, float]] | None
    """The best of our gates, which read no schedule, and what it reaches."""
    calibrated: tuple[float, float] | None
    """Of its places found beforehand on the pipeline, by a few plain runs' worth of calibration."""
    faster: float | None
    """Times as fast as plain (see `clock_of`), of the timed point of ours nearest to AIM."""
    fewer_steps: tuple[float, float] | None
    rival: str
    rival_reached: tuple[float, float] | None
    lead: float | None
    """Times fewer blocks of ours at the mean PSNR that the best rival has at AIM; below 1 is behind, 0 unreached."""
    lead_open: bool
    """Ours has that PSNR at its fastest point, so that the lead is at least so much."""
    peer_lead: float | None
    """The lead over the best of what others publish or ship, fixed intervals of our own code left out."""
    time_lead: float | None
    """The same in time (see `clock_of`), at AIM times less of it; None where too little was timed."""
    in_batches: float | None
    """The lead in time where several pictures are asked for in a call; None where that was not timed."""


def standing(data: dict[str, Any]) -> Standing | None:
    """Of one comparison's results; None where ours does not reach AIM."""
    ours = next((c["curve"] for c in usable(data) if is_ours(data, c) and "sparse" not in c["kind"]), None)
    if ours is None:
        return None
    curves = curves_of(data, by_time=False)
    here = value_at(curves[ours])
    if here is None:
        return None
    kinds = rival_curves(data)
    rivals = {curve: found for curve in kinds if (found := value_at(curves[curve])) is not None}
    fewer = [found for curve, found in rivals.items() if kinds[curve] == "fewer-steps"]
    others = {curve: found for curve, found in rivals.items() if kinds[curve] != "fewer-steps"}
    best = max(others, key=lambda curve: others[curve][0], default="")
    lead, is_open = lead_over(curves[ours], others[best][0]) if best else (None, False)
    peers = [found[0] for curve, found in others.items() if kinds[curve] == "peer"]
    calibrated = curve_of(data, CALIBRATED)
    gates = [(c, at) for c, kind in kinds_of(data).items() if kind == "gated" and (at := value_at(curves[c]))]
    timed = [c for c in usable(data) if c["curve"] == ours and c["time"]]
    nearest = min(timed, key=lambda c: abs(c["speedup"]["value"] - AIM), default=None)
    return Standing(
        name=f"{data['pipeline']['name']}, {data['pipeline']['steps']} steps",
        plain_seconds=median(pair["plain"][clock_of(data)] for pair in nearest["time"]["pairs"]) if nearest else None,
        ours=ours,
        reached=here,
        gate=max(gates, key=lambda gate: gate[1][0], default=None),
        calibrated=value_at(curves[calibrated]) if calibrated else None,
        faster=nearest["time"][clock_of(data)]["value"] if nearest else None,
        fewer_steps=fewer[0] if fewer else None,
        rival=best,
        rival_reached=others.get(best),
        lead=lead,
        lead_open=is_open,
        peer_lead=lead_over(curves[ours], max(peers))[0] if peers else None,
        time_lead=time_lead(data, ours),
        in_batches=next((time_lead(timed, ours) for timed in reversed(data.get("in_batches", ()))), None),
    )


def usable(data: dict[str, Any]) -> list[dict[str, Any]]:
    """Contenders that are compared with the plain picture, the references left out."""
    return [
        c
        for c in data["contenders"]
        if not c["error"]
        and c["kind"] not in ("plain", "converged")
        and c["speedup"]
        and c["metrics"][data["study"]["plain"]].get("psnr")
    ]


def is_ours(data: dict[str, Any], contender: dict[str, Any]) -> bool:
    return bool(data["kinds"][contender["kind"]]["ours"])


def kinds_of(data: dict[str, Any]) -> dict[str, str]:
    """The kind of every curve."""
    return {c["curve"]: c["kind"] for c in usable(data)}


def rival_curves(data: dict[str, Any]) -> dict[str, str]:
    """Curves that are not ours, with their kinds."""
    return {c["curve"]: c["kind"] for c in usable(data) if not is_ours(data, c)}


def curve_of(data: dict[str, Any], kind: str) -> str | None:
    """The first curve of a kind of contender; None where none ran."""
    return next((c["curve"] for c in usable(data) if c["kind"] == kind), None)


def curves_of(data: dict[str, Any], *, by_time: bool) -> dict[str, list[Point]]:
    """The points of every curve, its speed-ups counted in blocks or in time (see `clock_of`)."""
    found: dict[str, list[Point]] = {}
    for c in usable(data):
        speed = (c["time"] or {}).get(clock_of(data)) if by_time else c["speedup"]
        psnr = c["metrics"][data["study"]["plain"]]["psnr"]
        if speed:
            found.setdefault(c["curve"], []).append((speed["value"], psnr["value"], psnr["worst"]))
    return found


def clock_of(data: dict[str, Any]) -> str:
    """Which time counts: on a CPU that of the processor, which other programs on the machine take no part of."""
    return "cpu" if data["study"]["device"] == "cpu" else "wall"


def value_at(points: Sequence[Point], speedup: float = AIM) -> tuple[float, float] | None:
    """Mean and worst PSNR of a curve at `speedup`; None where it does not reach it."""
    x, mean, worst = np.array(points).T
    found = at_speedup(x, mean, speedup), at_speedup(x, worst, speedup)
    return found if np.isfinite(found[0]) else None


def lead_over(points: Sequence[Point], level: float, speedup: float = AIM) -> tuple[float, bool]:
    """By what factor a curve is faster than `speedup` where it has PSNR `level`, and whether it is at least that."""
    x, mean, _ = np.array(points).T
    found = at_quality(x, mean, level)
    return (float(x.max()) / speedup, True) if np.isinf(found) else (found / speedup, False)


def time_lead(data: dict[str, Any], ours: str) -> float | None:
    """The lead in time."""
    timed = {curve: points for curve, points in curves_of(data, by_time=True).items() if len(points) >= MINIMUM}
    rivals = [
        found[0]
        for curve, kind in rival_curves(data).items()
        if kind != "fewer-steps" and curve in timed and (found := value_at(timed[curve])) is not None
    ]
    return lead_over(timed[ours], max(rivals))[0] if rivals and ours in timed else None


def calibration_table(comparisons: Sequence[dict[str, Any]]) -> str:
    """Mean PSNR of ours, laid online and calibrated, and of the best other, where a comparison ran both; pipelines that
    nothing was chosen on first."""
    lines = [
        "| laid online, calibrated; best other | " + " | ".join(f"{at:g}x" for at in SHOWN) + " |",
        "| --- |" + " ---: |" * len(SHOWN),
    ]
    found: list[tuple[float, list[float | None]]] = []
    for data in sorted(comparisons, key=lambda data: not is_untouched(data)):
        online, calibrated = curve_of(data, ONLINE), curve_of(data, CALIBRATED)
        if online is None or calibrated is None:
            continue
        curves = curves_of(data, by_time=False)
        others = [curve for curve, kind in kinds_of(data).items() if not kind.startswith(ONLINE)]
        cells = []
        for at in SHOWN:
            ours = [mean_at(curves[curve], at) for curve in (online, calibrated)]
            rivals = [mean for curve in others if (mean := mean_at(curves[curve], at)) is not None]
            means = [*ours, max(rivals, default=None)]
            found.append((at, means))
            cells.append("{}, {}; {}".format(*("-" if mean is None else f"{mean:.1f}" for mean in means)))
        lines.append(f"| {data['pipeline']['name']}, {data['pipeline']['steps']} steps | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *ahead(found)])


def mean_at(points: Sequence[Point], speedup: float) -> float | None:
    """Mean PSNR of a curve at `speedup`; None where it does not reach it."""
    found = value_at(points, speedup)
    return found[0] if found else None


def ahead(found: Sequence[tuple[float, list[float | None]]]) -> list[str]:
    """In how many cells ours is ahead of the best other, and by how much; nothing is counted where no other reaches."""
    told = []
    for place, words in enumerate(("Laid online", "calibrated")):
        at_each = []
        for at in SHOWN:
            pairs = [(means[place], means[2]) for speedup, means in found if speedup == at]
            leads = [ours - other for ours, other in pairs if ours is not None and other is not None]
            if leads:
                near = sum(lead >= -NEAR for lead in leads)
                at_each.append(f"{near} of {len(leads)} at {at:g}x ({fmean(leads):+.1f} dB on average)")
        told.append(f"{words}, in {', '.join(at_each)}" if at_each else "")
    if not any(told):
        return []
    return [
        f"No more than {NEAR:g} dB behind the best other, where another reaches it: {'; '.join(filter(None, told))}."
    ]


def row(found: Standing, shipped: Standing | None = None) -> str:
    """A comparison as a row of the README, with that of the shipped pipeline beside it where this one is a sister."""
    behind = found.rival_reached is not None and found.rival_reached[0] > found.reached[0]
    rival = f"{pair(found.rival_reached, bold=behind)}, {found.rival}" if found.rival_reached else ""
    faster = f", {found.faster:.1f}x as fast" if found.faster else ""
    cells = [
        found.name,
        f"{found.plain_seconds:.2f}" if found.plain_seconds else "",
        f"{found.ours}{faster}",
        pair(found.reached, bold=not behind),
        pair(found.calibrated),
        pair(found.fewer_steps) if found.fewer_steps else "",
        rival,
        lead_in_words(found),
        ", ".join(f"{at[0]:.1f}" for at in (shipped.reached, shipped.rival_reached) if at) if shipped else "",
    ]
    return "| " + " | ".join(cells) + " |"


def pair(reached: tuple[float, float] | None, *, bold: bool = False) -> str:
    """Mean and worst: "51.2 (40.3)"."""
    if reached is None:
        return ""
    mean = f"{reached[0]:.1f}"
    return f"{f'**{mean}**' if bold else mean} ({reached[1]:.1f})"


def lead_in_words(found: Standing) -> str:
    """ "1.20x fewer blocks", "not reached"."""
    if found.lead is None:
        return ""
    if found.lead == 0:
        return "not reached"
    return f"{'at least ' if found.lead_open else ''}{found.lead:.2f}x fewer blocks"


def table(comparisons: Sequence[dict[str, Any]]) -> str:
    """The table, pipelines that nothing was chosen on first and the others beside their sisters, and what it comes to.
    Empty where nothing is there."""
    held = [(data, found) for data in comparisons if (found := standing(data))]
    if not held:
        return ""
    untouched = [found for data, found in held if is_untouched(data)]
    beside = {found.name: found for data, found in held if not is_untouched(data)}
    lines = ["| " + " | ".join(HEADS) + " |", "| --- | ---: | --- |" + " ---: |" * 3 + " --- |" * 2 + " ---: |"]
    lines += [row(found, beside.pop(found.name.replace("-sister", ""), None)) for found in untouched]
    lines += [row(found) for found in beside.values()]
    machines = sorted({data["environment"].get("device", "") for data, _ in held})
    prompts = sorted({data["study"]["samples"] for data, _ in held})
    measured = (
        f"{' to '.join(map(str, dict.fromkeys((prompts[0], prompts[-1]))))} held-out prompts; {', '.join(machines)}"
        f"{', seconds of its processor' if all(clock_of(data) == 'cpu' for data, _ in held) else ''}."
    )
    return "\n".join([*lines, "", *(f"- {said}" for said in (*sentences(held), " ".join([measured, *later(held)])))])


def later(held: Iterable[tuple[dict[str, Any], Standing]]) -> list[str]:
    """That some contenders were measured on later days than the rest of their comparison."""
    some = any(again["made"] > data["made"] for data, _ in held for again in data.get("later", ()))
    return ["Some were measured on later days than the rest ([which](docs/results.md))."] if some else []


def curves_in(data: dict[str, Any]) -> str:
    return ", ".join(dict.fromkeys(c["curve"] for c in usable(data)))


def is_untouched(data: dict[str, Any]) -> bool:
    """Whether nothing was chosen on the pipeline."""
    return data["pipeline"]["name"].endswith("-sister")


def judged(blocks: float, time: float | None, in_batches: float | None = None) -> str:
    """Whether the goal is met in blocks, in time and in the time of calls for several pictures."""
    leads = {"blocks": blocks, "time": time, "batches": in_batches}
    met = [f"{'met' if lead >= GOAL else 'missed'} in {of}" for of, lead in leads.items() if lead is not None]
    return f"the goal of {GOAL:g} is {', '.join(met[:-1])}{' and ' * (len(met) > 1)}{met[-1]}"


def sentences(held: Sequence[tuple[dict[str, Any], Standing]]) -> list[str]:
    """What the table comes to: the mean lead beside the goal, and every row that is lost."""
    said = []
    sizes = sorted({one["study"]["timing_batch"] for data, _ in held for one in data.get("in_batches", ())})
    for words, rows in (
        ("Where nothing was chosen", [found for data, found in held if is_untouched(data)]),
        ("On the shipped ones that settings were chosen on", [found for data, found in held if not is_untouched(data)]),
    ):
        leads = [found.lead for found in rows if found.lead is not None]
        timed = " in processor time" if all(clock_of(data) == "cpu" for data, _ in held) else ""
        times = [found.time_lead for found in rows if found.time_lead is not None]
        batched = [found.in_batches for found in rows if found.in_batches is not None]
        if not leads:
            continue
        peers = [found.peer_lead for found in rows if found.peer_lead is not None]
        clock = f", and is {fmean(times):.2f} times as fast{timed}" if times else ""
        clock += f" ({fmean(batched):.2f} in calls of {' or '.join(map(str, sizes))} pictures)" if batched else ""
        verdict = judged(fmean(leads), *(fmean(some) if some else None for some in (times, batched)))
        beside = f" Beside the best of what others publish or ship it is {fmean(peers):.2f} times." if peers else ""
        lost = [
            f"{found.name} ({found.rival_reached[0] - found.reached[0]:.1f} dB to {found.rival})"
            for found in rows
            if found.rival_reached and found.rival_reached[0] > found.reached[0]
        ]
        worse = [
            f"{found.name} ({found.rival_reached[1] - found.reached[1]:.1f} dB)"
            for found in rows
            if found.rival_reached and found.rival_reached[1] > found.reached[1]
        ]
        behind = ", ".join(lost) or "nowhere"
        gates = [
            f"{found.name} ({pair(found.gate[1])}, {found.gate[0]})"
            for found in rows
            if found.gate and found.gate[0] != found.ours and found.gate[1][0] - found.reached[0] > NEAR
        ]
        said.append(
            f"**{words}**, in the mean over {len(leads)} rows, ours computes {fmean(leads):.2f} times fewer blocks "
            f"for the picture of the best rival{clock}: {verdict}.{beside} Behind in the mean: {behind}; in the worst "
            f"picture: {', '.join(worse) or 'nowhere'}."
            + (f" One of our own gates is ahead on {', '.join(gates)}." if gates else "")
        )
    return said
