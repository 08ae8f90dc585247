"""`outpace tune` as a person uses it, on a tiny random pipeline."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from outpace.accel import IntervalTaylor, Profile, ScheduledTaylor
from outpace.accel.methods import Method
from outpace.cli import main
from outpace.cli.options.budget import read_budget
from outpace.cli.tuning import run as tuning_run
from outpace.cli.tuning.grid import bricks_matter, candidate_of, parts_for, settings_grid
from outpace.cli.tuning.part import PARTS, Part, Trial
from outpace.cli.tuning.prompts import split_lines
from outpace.cli.tuning.rivals import Rivals, rival_of
from outpace.errors import InputError
from outpace.evaluation import Contender, Request
from outpace.evaluation.tune import Candidate, Standing, parse_target
from outpace.evaluation.tune.certify import Certificate


def run(*words: object) -> Result:
    return CliRunner().invoke(main, ["tune", *map(str, words)])


@pytest.fixture
def words(tiny_folder: Path, tmp_path: Path) -> list[object]:
    """A command on the tiny pipeline: 3 prompts to choose by, 9 to certify on."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("".join(f"{i}\n" for i in range(12)), encoding="utf-8")
    out = tmp_path / "out" / "profile.json"
    return [tiny_folder, "--prompts", prompts, "--risk", 0.4, "--steps", 8, "--batch", 32, "--out", out,
            "--device", "cpu", "--budget", "5m"]  # fmt: skip


@pytest.fixture
def few_settings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Only some of the grid, so that nothing is left out for time; the names of what is tried."""
    tried: list[str] = []

    def few(bench: Any, parts: list[Part]) -> list[Candidate]:
        every = settings_grid(bench, parts)
        chosen = [*every[:4], *(c for c in every[4:] if "interval" in c.name or c.name.startswith("steps-"))][:10]
        tried.extend(c.label for c in chosen)
        return chosen

    monkeypatch.setattr(tuning_run, "settings_grid", few)
    return tried


def test_settings_are_found_certified_written_and_used(
    words: list[Any], few_settings: list[str], tiny_folder: Path, tmp_path: Path
) -> None:
    ran = run(*words, "--target", "psnr>=5", "--target", "blocks<=90%", "--json")
    assert ran.exit_code == 0, ran.output
    told = json.loads(ran.stdout)
    assert told["certified"] and told["settings"]["label"] in few_settings
    bound = told["bound"]
    assert bound["held_out_requests"] == 9 and bound["misses"] <= bound["misses_allowed"] == 1
    assert [row["kind"] for row in told["rivals"]] == ["preset"] * 4 + ["fewer-steps", "solver", "solver"]
    assert [row["label"] for row in told["rivals"][:4]] == [
        f"preset {n}" for n in ("careful", "balanced", "fast", "paper")
    ]
    assert all(row["blocks"] <= told["calibration"]["figures"]["blocks"] + 1e-6 for row in told["rivals"][4:])
    unbeaten = [row["label"] for row in told["rivals"] if row["says"] in ("better", "equal")]
    assert all(label in told["verdict"] for label in unbeaten)
    assert ("Beats every preset and fewer steps" in told["verdict"]) is all(
        row["says"] == "worse" for row in told["rivals"]
    )
    figures = told["calibration"]["figures"]
    assert figures["blocks"] <= 0.9 and figures["psnr"]["worst"] >= 5 and told["calibration"]["share_of_time"]
    profile = Profile.load(tmp_path / "out" / "profile.json")
    assert profile.certified and profile.target == ("psnr>=5.0", "blocks<=0.9") and profile.sample == (4, 8, 8)
    assert profile.command.startswith(f"outpace tune {tiny_folder}") and "--target 'psnr>=5'" in profile.command

    picture = ["generate", str(tiny_folder), "--prompt", "3", "--out", str(tmp_path / "x.png"), "--profile"]
    used = CliRunner().invoke(main, [*picture, str(tmp_path / "out" / "profile.json"), "--json"])
    assert used.exit_code == 0, used.output
    recipe = json.loads(used.stdout)
    assert recipe["arguments"]["num_inference_steps"] == profile.steps
    assert not [note for note in recipe["trace"]["warnings"] if "tuned for" in note], "it is used as it was tuned"
    other = CliRunner().invoke(main, [*picture, str(tmp_path / "out" / "profile.json"), "--steps", "11"])
    assert other.exit_code == 0 and f"tuned for {profile.steps} steps and this run has 11" in other.stdout


def test_interrupted_it_leaves_no_profile_and_goes_on_where_it_stopped(
    words: list[Any], few_settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from outpace.cli.tuning import measuring

    really: Callable[..., Any] = measuring.run_contender
    ran: list[str] = []

    def stops(study: Any, records: Any, contender: Any, advance: Any) -> Any:
        if len(ran) == 12:
            raise KeyboardInterrupt
        ran.append(contender.name)
        return really(study, records, contender, advance)

    monkeypatch.setattr(measuring, "run_contender", stops)
    target = ("--target", "psnr>=5")
    stopped = run(*words, *target)
    assert stopped.exit_code == 130 and "Stopped." in stopped.stderr
    home = tmp_path / "out"
    assert [p.name for p in home.iterdir()] == ["profile.measured"]
    kept = {p: p.stat().st_mtime_ns for p in home.rglob("*.json")}
    assert len(kept) > 5 and all(json.loads(p.read_text())["fingerprint"] for p in kept)
    monkeypatch.setattr(measuring, "run_contender", really)
    continued = run(*words, *target)
    assert continued.exit_code == 0, continued.output
    assert {p: p.stat().st_mtime_ns for p in kept} == kept, "what was measured is not measured again"
    assert "Certified: at most 40 % of requests" in continued.stdout and "Profile: " in continued.stdout
    first = Profile.load(home / "profile.json")
    again = run(*words, *target, "--out", tmp_path / "fresh" / "profile.json")
    assert again.exit_code == 0
    fresh = Profile.load(tmp_path / "fresh" / "profile.json")
    assert fresh.methods == first.methods and fresh.steps == first.steps and fresh.bound == first.bound


def test_what_cannot_be_promised_says_why_and_ends_with_1(words: list[Any], few_settings: list[str]) -> None:
    out = Path(str(words[words.index("--out") + 1]))
    ran = run(*words, "--target", "blocks<=1%")
    assert ran.exit_code == 1 and not out.exists()
    assert "Not certified: no setting kept blocks<=0.01 on the calibration prompts" in ran.stdout
    assert "No settings to hold against the presets." in ran.stdout


def test_a_bound_on_time_is_measured_in_turns(words: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning_run, "settings_grid", lambda bench, parts: [candidate_of(bench, n, ()) for n in (3, 6)])
    ran = run(*words, "--target", "time<=99%", "--json")
    told = json.loads(ran.stdout)
    assert ran.exit_code == (0 if told["certified"] else 1)
    if told["certified"]:  # a machine may be too busy to tell
        assert (
            told["settings"]["steps"] in (3, 6)
            and "time" in told["calibration"]["figures"]
            and told["bound"]["misses"] <= 1
        )


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        (["--target", "psnr<=30"], "higher is better"),
        (["--target", "psnr>=30", "--budget", "soon"], "write it as 90s, 20m or 1.5h"),
        (["--target", "psnr>=30", "--prompts", "3"], "5 are needed"),
        (["--target", "psnr>=30", "--risk", "0.01"], "230 are needed"),
        (["--target", "psnr>=30", "--risk", "1"], "--risk"),
        (["--target", "ssim>=0.9"], "too small for it"),
        ([], "--target"),
    ],
)
def test_slips_cost_one_line(words: list[Any], extra: list[str], says: str, few_settings: list[str]) -> None:
    ran = run(*words, *extra)
    assert ran.exit_code == 2 and says in ran.stderr and ran.stderr.strip().count("\n") <= 3


def test_the_grid_is_varied_and_names_each_setting_once(tiny_pipe: Any) -> None:
    from outpace.cli.contenders.bench import Bench
    from outpace.pipelines.load import Loaded, Source

    loaded = Loaded(pipe=tiny_pipe, source=Source(name="tiny", kind="folder"), prompt_argument="class_labels")
    bench = Bench(loaded=loaded, arguments={"num_inference_steps": 50})
    every = [part for _, part in PARTS.items()]
    dense, sparse = settings_grid(bench, [part for part in every if part.matters is None]), settings_grid(bench, every)
    assert len({c.name for c in sparse}) == len(sparse) > len(dense) > 80
    assert [c.kept for c in dense[:5]] == [True] * 4 + [False]
    assert all(0 < c.cost <= 1 for c in sparse)
    assert not any("adaspa" in c.name for c in dense) and any("adaspa" in c.name for c in sparse)
    kinds = {c.payload[0].kind for c in sparse[:30]}
    assert {"gated", "gated+solver", "interval", "fewer-steps", "solver", "sparse"} <= kinds


def test_a_new_part_of_the_grid_is_one_entry_and_is_tried_where_it_matters(tiny_pipe: Any) -> None:
    from outpace.cli.contenders.bench import Bench
    from outpace.pipelines.load import Loaded, Source

    loaded = Loaded(pipe=tiny_pipe, source=Source(name="tiny", kind="folder"), prompt_argument="class_labels")
    bench = Bench(loaded=loaded, arguments={"num_inference_steps": 8})
    new: list[tuple[int, tuple[Method, ...]]] = [(8, (IntervalTaylor(interval=7),))]
    request = Request(index=0, prompt=3, seed=0)
    try:
        PARTS.add("needless", Part(ways=lambda steps: new, matters=lambda trial: False))
        without = settings_grid(bench, parts_for(Trial(bench=bench, request=request)))
        PARTS.add("new", Part(ways=lambda steps: new, matters=lambda trial: True))
        with_it = settings_grid(bench, parts_for(Trial(bench=bench, request=request)))
    finally:
        PARTS.remove("needless")
        PARTS.remove("new")
    assert {c.name for c in with_it} - {c.name for c in without} == {"8-interval_taylor-interval-7"}


def test_a_share_of_the_work_finds_a_calibrated_schedule_that_the_profile_holds(
    words: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from outpace.cli.tuning import schedules

    monkeypatch.setattr(schedules, "RUNS", 9.0)
    grid = settings_grid

    def scheduled(bench: Any, parts: list[Part]) -> list[Candidate]:
        return [c for c in grid(bench, parts) if c.kept or "scheduled" in c.name][:8]

    monkeypatch.setattr(tuning_run, "settings_grid", scheduled)
    made: list[float] = []
    really = ScheduledTaylor.calibrate

    def calibrate(*args: Any, **kwargs: Any) -> Any:
        made.append(kwargs["speedup"])
        return really(*args, **kwargs)

    monkeypatch.setattr(ScheduledTaylor, "calibrate", calibrate)
    for target in ("speedup>=3", "blocks<=34%"):
        told = json.loads(run(*words, "--target", target, "--json").stdout)
        assert told["certified"] and told["calibration"]["figures"]["blocks"] == 0.25, "8 steps: 2 are at least 3x"
        (method,) = Profile.load(tmp_path / "out" / "profile.json").methods
        assert isinstance(method, ScheduledTaylor) and method.speedup == 4.0
    assert made == [4.0], "kept beside what was measured, a calibration is made once"
    labels = [row["label"] for row in told["bound"]["chain"]]
    assert any(label.startswith("scheduled 4") for label in labels)


def test_a_schedule_is_calibrated_where_the_budget_has_room_for_it(tiny_pipe: Any) -> None:
    from outpace.cli.contenders.bench import Bench
    from outpace.cli.tuning.schedules import calibrated_ways, least_speedup, may_calibrate
    from outpace.pipelines.load import Loaded, Source

    loaded = Loaded(pipe=tiny_pipe, source=Source(name="tiny", kind="folder"), prompt_argument="class_labels")
    bench = Bench(loaded=loaded, arguments={"num_inference_steps": 12})
    request = Request(index=0, prompt=3, seed=0)
    assert not may_calibrate(Trial(bench=bench, request=request, runs=23.0))
    assert may_calibrate(Trial(bench=bench, request=request, runs=24.0))
    known = Bench(loaded=loaded, arguments={"num_inference_steps": 12}, yardstick=request)
    assert bricks_matter(Trial(bench=known, request=request, runs=30.0))
    assert not bricks_matter(Trial(bench=known, request=request, runs=29.0))
    assert least_speedup(parse_target(["blocks<=25%", "speedup>=3"])) == 4.0
    assert least_speedup(parse_target(["psnr>=30"])) is None
    kept: dict[str, Any] = {"schedule-4x": ScheduledTaylor(speedup=4.0, levels="1/0.5/0.2", steps=12).to_dict()}
    ways = calibrated_ways(Trial(bench=bench, request=request, once=lambda name, make: kept[name]))(12)
    found = [method for _, (method,) in ways if isinstance(method, ScheduledTaylor)]
    assert [method.speedup for method in found] == [4.0, 3.0, 6.0, 2.0, 1.71]
    assert {method.levels for method in found} == {"1/0.5/0.2"}


def test_the_price_of_a_bound_on_time_is_more_than_that_of_a_metric() -> None:
    metric = tuning_run.Price(few=3.0, batched=1.0, alone=0.0)
    assert metric.runs(600.0) == pytest.approx(0.15 * 600.0 / 3.0) and metric.runs(None) == float("inf")
    timed = tuning_run.Price(few=3.0, batched=1.0, alone=2.0)
    assert metric.of(0.5, 10) == 5.0 and timed.of(0.5, 10) == 5.0 + 11 * 2.0 * 1.5
    assert metric.of(0.5, tuning_run.FIRST) == 3.0, "few requests a batch cost more each"
    assert tuning_run.search_share(None, metric, 64) == 1.0
    assert tuning_run.search_share(1000.0, metric, 64) == pytest.approx(1 - (64 + 10 * 0.4 * 64) / 1000)
    assert tuning_run.search_share(10.0, metric, 64) == 0.25 and tuning_run.search_share(1e9, metric, 64) == 0.75


def test_budgets_and_files() -> None:
    assert [read_budget(t) for t in ("20m", "90", "1.5h", "30 s", "2min")] == [1200, 90, 5400, 30, 120]
    for text in ("", "0", "-3m", "1d", "nan", "inf"):
        with pytest.raises(InputError):
            read_budget(text)
    lines = [str(i) for i in range(100)]
    choosing, certifying = split_lines(lines, 16, seed=0)
    assert len(choosing) == 16 and sorted([*choosing, *certifying], key=int) == lines
    assert certifying != sorted(certifying, key=int) and split_lines(lines, 16, 0) == (choosing, certifying)
    assert len(split_lines(lines[:20], 16, 0)[0]) == 5


@pytest.mark.parametrize(
    ("psnr", "blocks", "says"),
    [(40.0, 0.5, "worse"), (20.0, 0.1, "worse"), (40.0, 0.2, "better"), (40.0, 0.301, "equal")],
)
def test_rivals_that_are_not_beaten_are_named(psnr: float, blocks: float, says: str) -> None:
    certificate = Certificate(target=parse_target(["psnr>=30"]), risk=0.1, alpha=0.1, requests=64, trials=[])
    contender = Contender(name="tuned", label="tuned", kind="gated", steps=8, generate=lambda requests: [])

    def standing(preset: str, psnr: float, blocks: float) -> Standing:
        name = preset or "tuned"
        candidate = Candidate(name=name, label=name, cost=blocks, payload=(contender, (), preset))
        return Standing(candidate=candidate, scores=[{"psnr": psnr, "blocks": blocks}] * 64)

    best = standing("", 35.0, 0.3)
    row = rival_of(standing("x", psnr, blocks), best, certificate)
    assert row.says == says and row.misses == (64 if psnr < 30 else 0) and row.label == "preset x"
    assert ("with less work" in row.line()) is ((blocks < 0.3 and psnr < 30) or says == "better")
    assert rival_of(best, best, certificate).says == "same"
    verdict = Rivals(rows=[row]).verdict()
    assert verdict == "Beats every preset and fewer steps." if says == "worse" else "Does not beat preset x" in verdict
    assert Rivals(rows=[rival_of(best, best, certificate)]).verdict() == (
        "The best settings are tuned. Tuning found nothing better."
    )
