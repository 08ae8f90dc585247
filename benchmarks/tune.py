"""Nine tunings, held to prompts that had no part in them: three pipelines, three targets each.

    make bench-tune     # or: python benchmarks/tune.py [PIPELINE ...] [--metric NAME ...]

Each target is tuned as `outpace tune` does it: settings are chosen on calibration prompts and certified on held-out
ones. What the profile file then says is run on fresh prompts, which neither of the two has seen. Times are measured
beside the plain pipeline, in turns, one thread; targets on time go last. Writes benchmarks/results/tuning.json after
every tuning and docs/results_tuning.md; measurements stay in out/bench/tune, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

if TYPE_CHECKING:
    from outpace.cli.tuning.run import Outcome
    from outpace.evaluation import Request
    from outpace.evaluation.tune import Scores

RESULTS = ROOT / "benchmarks" / "results" / "tuning.json"
PAGE = ROOT / "docs" / "results_tuning.md"
FRESH_SEED = 900_000
"""Seeds of fresh requests start here, far from those that choose and those that certify."""

TIMED = 4
"""Fresh requests on which settings are timed where the target is no bound on time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """One tuning."""

    pipeline: str
    target: str
    budget: int
    """Seconds of processor time for search, certification and rivals together: a busy machine shortens no search."""
    steps: int = 50
    risk: float = 0.1
    alpha: float = 0.1
    calibration: int = 8
    held_out: int = 38
    """The fewest with which one miss is allowed at a risk and alpha of 0.1; at a risk of 0.2, 11 allow none."""
    fresh: int = 40

    @property
    def name(self) -> str:
        """Fit for a file name."""
        return f"{self.pipeline}-{self.target.split('>')[0].split('<')[0]}"


TIMING = {"steps": 28, "risk": 0.2, "calibration": 4, "held_out": 11, "fresh": 12}
"""Of the plans that bound the time: at batch 1, beside the plain pipeline, a request costs several times as much."""

PLANS = (
    Plan(pipeline="dit", target="psnr>=40", budget=90),
    Plan(pipeline="dit", target="ssim>=0.995", budget=90),
    Plan(pipeline="flux", target="psnr>=55", budget=130),
    Plan(pipeline="flux", target="latent_l2<=0.01", budget=130),
    Plan(pipeline="wan", target="psnr>=42", budget=190),
    Plan(pipeline="wan", target="ssim>=0.99", budget=190),
    Plan(pipeline="dit", target="time<=60%", budget=200, **TIMING),
    Plan(pipeline="flux", target="time<=60%", budget=260, **TIMING),
    Plan(pipeline="wan", target="time<=60%", budget=420, **TIMING),
)


def tuned(plan: Plan, folder: Path) -> dict[str, Any]:
    """Tune after `plan`, then hold the profile that was written to fresh prompts; everything as plain data.

    Args:
        folder: for the profile and what is measured on the way.
    """
    from outpace.accel import Profile
    from outpace.cli.contenders.bench import Bench
    from outpace.cli.contenders.curve import plain
    from outpace.cli.contenders.study import identity
    from outpace.cli.tune import profile_of
    from outpace.cli.tuning.grid import candidate_of
    from outpace.cli.tuning.measuring import Measuring
    from outpace.cli.tuning.prompts import requests_of
    from outpace.cli.tuning.run import Promise, run_tuning
    from outpace.evaluation import Request
    from outpace.evaluation.environment import environment
    from outpace.evaluation.tune import Deadline, parse_target
    from outpace.pipelines.load import call_arguments, load_pipeline, read_prompts

    loaded = load_pipeline(plan.pipeline, device="cpu", progress=False)
    loaded.pipe.set_progress_bar_config(disable=True)
    bench = Bench(loaded=loaded, arguments=call_arguments(loaded, steps=plan.steps))
    target, known = parse_target([plan.target]), identity(bench)

    def measuring(part: str) -> Measuring:
        # What is measured does not depend on the target, so that all targets of a pipeline share it.
        kept = folder / f"{plan.pipeline}-{plan.steps}-{plan.held_out}.measured" / part
        return Measuring(bench=bench, plain=plain(bench), folder=kept, target=target, batch=8, identity=known)

    load_before = os.getloadavg()[0]
    choosing, certifying = requests_of(loaded, plan.held_out, plan.calibration, seed=0)
    promise = Promise(target=target, risk=plan.risk, alpha=plan.alpha)
    clock = Deadline(plan.budget, time.process_time)
    outcome = run_tuning(measuring("tuning"), choosing, certifying, promise, clock, progress=sys.stderr.isatty())
    row: dict[str, Any] = {
        **asdict(plan),
        "target": str(target),
        "seconds": round(clock.spent),
        "certified": outcome.certificate.chosen is not None,
        "settings": outcome.settings(),
        "bound": outcome.bound(),
        "calibration": outcome.calibration(),
        "rivals": outcome.rivals.as_dicts(),
        "verdict": outcome.verdict(),
        "fresh": None,
        "made": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "environment": environment("cpu"),
    }
    if outcome.best is not None:
        path = folder / f"{plan.name}.json"
        profile_of(bench, outcome, {"steps": plan.steps}, "python benchmarks/tune.py").save(path)
        profile = Profile.load(path)
        settings = candidate_of(bench, profile.steps, profile.methods)
        texts = loaded.pocket.prompts(plan.held_out + plan.fresh, "held_out")[plan.held_out :]
        fresh = [
            Request(index=i, prompt=prompt, seed=FRESH_SEED + i)
            for i, prompt in enumerate(read_prompts(loaded, [str(text) for text in texts]))
        ]
        check_fresh(fresh, [*choosing, *certifying])
        judge = measuring("fresh")
        scores = judge(settings, fresh)
        times = [s["time"] for s in scores] if "time" in scores[0] else judge.share_of_time(settings, fresh[:TIMED])
        row["fresh"] = held_to(scores, times, outcome)
    row["load"] = [round(load_before, 2), round(os.getloadavg()[0], 2)]
    return row


def check_fresh(fresh: list[Request], used: list[Request]) -> None:
    """Raises: ValueError where a fresh request has been used for tuning."""
    before = {request.seed for request in used}
    if again := [request.seed for request in fresh if request.seed in before]:
        raise ValueError(f"these seeds have been used for tuning: {again}")


def held_to(scores: list[Scores], times: list[Any], outcome: Outcome) -> dict[str, Any]:
    """What settings reach on fresh requests: misses, work, time, and of the bounded number the median and the worst."""
    from outpace.evaluation.tune import Standing

    assert outcome.best is not None
    target, risk = outcome.certificate.target, outcome.certificate.risk
    standing = Standing(candidate=outcome.best.candidate, scores=scores)
    clause, misses = target.clauses[0], standing.misses(target)
    values = [value for s in scores if (value := s.get(clause.name)) is not None]
    return {
        "requests": len(scores),
        "misses": misses,
        "met": misses <= risk * len(scores),
        "blocks": standing.mean("blocks"),
        "time": median(times),
        "timed": len(times),
        "median": median(values) if values else None,
        "worst": (min if clause.higher else max)(values, default=None),
    }


def page(rows: list[dict[str, Any]]) -> str:
    """docs/results_tuning.md: what every tuning found, as it was measured."""
    met = sum(bool(row["fresh"] and row["certified"] and row["fresh"]["met"]) for row in rows)
    lines = [
        "# Tuned settings on fresh prompts",
        "",
        "Written by `make bench-tune` from benchmarks/results/tuning.json; what is promised and what is not: "
        "[tuning](tuning.md).",
        "",
        f"**{met} of {len(rows)} targets were certified and then kept on fresh prompts**, which neither chose the "
        "settings nor certified them: other seeds, and other captions as far as a pipeline has any left. Kept means "
        "that no larger share of them missed than the stated risk. Work is the share of the plain pipeline's "
        "transformer blocks; time is the median share of its time, the two taking turns at batch 1. A bound on time "
        "was found and checked under the load that stands below; where that changed, what is said of it need not hold.",
        "",
        "| pipeline, steps | target | settings found | work | time | held-out: missed (allowed) | fresh: missed "
        "| fresh: median, worst | kept |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | --- |",
        *(settings_line(row) for row in rows),
        "",
        "## Beside presets and fewer steps",
        "",
        "On the held-out prompts that certified the settings. Of the presets, the cheapest that misses no more than "
        "may be (where a bound on work or time is the target, the most faithful); fewer steps with the work of the "
        "tuned settings, on the pipeline's own solver and on the better of two of second order.",
        "",
        "| pipeline | target | tuned: work | best preset | fewer steps | fewer steps, second order | verdict |",
        "| --- | --- | ---: | --- | --- | --- | --- |",
        *(rivals_line(row) for row in rows),
        "",
        "## How they were run",
        "",
        "| pipeline | target | risk, alpha | chosen on | processor seconds, of a budget of | candidates, in rounds "
        "| untried | load before, after | made |",
        "| --- | --- | --- | ---: | ---: | --- | ---: | --- | --- |",
        *(run_line(row) for row in rows),
        "",
    ]
    told = ("device", "torch threads", "system", "python", "torch", "diffusers")
    places = {", ".join(f"{key} {row['environment'][key]}" for key in told) for row in rows}
    return "\n".join([*lines, *(f"{place}." for place in sorted(places))]) + "\n"


def settings_line(row: dict[str, Any]) -> str:
    """One tuning: what was found, and what it reached."""
    bound, fresh = row["bound"], row["fresh"]
    head = f"| {row['pipeline']}, {row['steps']} | {row['target']} |"
    if fresh is None:
        return f"{head} none: {bound['statement']} | | | | | | no |"
    missed = f"{bound['misses']} of {bound['held_out_requests']} ({bound['misses_allowed']})"
    kept = "yes" if fresh["met"] else "no"
    return (
        f"{head} {row['settings']['label']} | {fresh['blocks']:.2f} | {fresh['time']:.2f} | "
        f"{missed if row['certified'] else 'not certified'} | {fresh['misses']} of {fresh['requests']} | "
        f"{fresh['median']:.4g}, {fresh['worst']:.4g} | {kept if row['certified'] else f'{kept}, not promised'} |"
    )


def rivals_line(row: dict[str, Any]) -> str:
    """One tuning beside what nobody has to search for."""

    def told(kind: str) -> str:
        rows = [rival for rival in row["rivals"] if rival["kind"] == kind]
        keeping = [rival for rival in rows if rival["misses"] <= row["bound"]["misses_allowed"]]
        if not rows:
            return "not compared"
        if kind == "preset" and not keeping:
            return f"none of {len(rows)} keeps it"
        shares = row["target"].startswith(("time", "blocks"))
        # Of those that keep it the most wanted; of fewer steps, which all cost the same, the one that misses least.
        price = (lambda rival: -(rival["psnr"] or 0.0)) if shares else (lambda rival: rival["blocks"])
        best = min(keeping or rows, key=lambda rival: (rival["misses"] if kind != "preset" else 0, price(rival)))
        psnr = "" if best["psnr"] is None else f", {best['psnr']:.1f} dB"
        return f"{best['label']}: {best['blocks']:.2f} work{psnr}, missed {best['misses']} of {best['requests']}"

    figures = row["calibration"]["figures"] or {}
    work = f"{figures['blocks']:.2f}" if figures else ""
    psnr = f", {figures['psnr']['median']:.1f} dB" if "psnr" in figures else ""
    kinds = " | ".join(told(kind) for kind in ("preset", "fewer-steps", "solver"))
    return f"| {row['pipeline']} | {row['target']} | {work}{psnr} | {kinds} | {row['verdict']} |"


def run_line(row: dict[str, Any]) -> str:
    """One tuning: with what it was run, and what it had time for."""
    chosen = row["calibration"]
    rounds = ", ".join(f"{rung['candidates']} on {rung['requests']}" for rung in chosen["rungs"])
    return (
        f"| {row['pipeline']} | {row['target']} | {row['risk']:g}, {row['alpha']:g} | {chosen['requests']} | "
        f"{row['seconds']}, {row['budget']} | {rounds} | {chosen['untried']} | "
        f"{', '.join(map(str, row['load']))} | {row['made']} |"
    )


def main() -> None:
    os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pipelines", nargs="*", metavar="PIPELINE", help="only these")
    parser.add_argument("--metric", nargs="*", metavar="NAME", help="only targets that bound one of these")
    parser.add_argument("--folder", type=Path, default=ROOT / "out" / "bench" / "tune", help="for what is measured")
    chosen = parser.parse_args()
    kept = json.loads(RESULTS.read_text(encoding="utf-8"))["tunings"] if RESULTS.is_file() else {}
    for plan in PLANS:
        metric = plan.name.removeprefix(f"{plan.pipeline}-")
        if plan.pipeline not in (chosen.pipelines or [plan.pipeline]) or metric not in (chosen.metric or [metric]):
            continue
        kept[plan.name] = tuned(plan, chosen.folder)
        rows = {plan.name: kept[plan.name] for plan in PLANS if plan.name in kept}
        part = RESULTS.with_suffix(".part")
        part.write_text(json.dumps({"schema": 1, "tunings": rows}, indent=1) + "\n", encoding="utf-8")
        os.replace(part, RESULTS)
        PAGE.write_text(page(list(rows.values())), encoding="utf-8")
        print(settings_line(kept[plan.name]), flush=True)


if __name__ == "__main__":
    main()
