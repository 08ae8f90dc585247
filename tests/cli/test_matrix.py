"""`outpace compare --matrix` from end to end, its axes as registered data, and slips."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from outpace.accel import AdaSpa, GatedTaylor, IntervalTaylor, Solver
from outpace.cli import main
from outpace.cli.contenders.bench import Bench
from outpace.cli.contenders.matrix import AXES, Axis, Choice, plan_matrix, read_axes
from outpace.cli.options.method import parse_combination, spell_combination
from outpace.errors import InputError, UnknownNameError
from outpace.evaluation import Request


def run(*words: str) -> Result:
    return CliRunner().invoke(main, ["compare", *words])


REQUEST = Request(index=0, prompt=1, seed=0)


@pytest.fixture
def bench(tiny_pipe: Any) -> Bench:
    from outpace.pipelines.load import Loaded, Source

    loaded = Loaded(pipe=tiny_pipe, source=Source(name="tiny", kind="folder"), prompt_argument="class_labels")
    return Bench(loaded=loaded, arguments={"num_inference_steps": 8, "guidance_scale": 2.0}, yardstick=REQUEST)


def test_a_pipeline_is_measured_in_every_combination(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("3\n7\n", encoding="utf-8")
    words = [str(tiny_folder), "--matrix", "--prompts", str(tmp_path / "prompts.txt"), "--methods", "steps-6"]
    words += ["--steps", "10", "--converged-steps", "12"]
    words += ["--timing-prompts", "1", "--out", str(tmp_path / "out"), "--device", "cpu"]
    ran = run(*words)
    assert ran.exit_code == 0, ran.output
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    matrix = results["matrix"]
    axes = {axis["name"]: axis for axis in matrix["axes"]}
    assert "16 tokens" in axes["attention"]["reason"] and not axes["attention"]["choices"]
    assert len(axes["forecast"]["choices"]) == 2 and list(axes["solver"]["choices"]) == ["solver"]
    assert len(matrix["combinations"]) == 3 * 2
    held = {c["name"]: c for c in results["contenders"]}
    for row in matrix["combinations"][1:]:
        assert held[row["contender"]]["kind"] == "combination" and row["time"] and row["speedup"]
        assert [m.to_dict() for m in parse_combination(row["method"])] == held[row["contender"]]["settings"]["methods"]
    both = [row for row in matrix["combinations"] if len(row["parts"]) == 2]
    assert len(both) == 2 and all(row["attribution"]["latents"]["parts"].keys() == row["parts"].keys() for row in both)
    assert "Best for PSNR >= 30 dB" in ran.output and "16 tokens" in ran.output
    assert "--matrix" in results["command"]


def test_a_new_axis_is_one_entry(bench: Bench) -> None:
    def towers(bench: Bench, request: Request) -> list[Choice]:
        return [
            Choice(name="two", label="2 towers", methods=(IntervalTaylor(interval=2),)),
            Choice(name="three", label="3 towers", methods=(IntervalTaylor(interval=3),)),
        ]

    AXES.add("towers", Axis(label="towers", choices=towers))
    AXES.add("heads", Axis(label="heads", choices=lambda bench, request: "this pipeline has none"))
    try:
        plan = plan_matrix(bench, REQUEST)
    finally:
        AXES.remove("towers")
        AXES.remove("heads")
    assert {axis.name: axis.reason for axis in plan.axes}["heads"] == "this pipeline has none"
    assert len(plan.combinations) == 3 * 2 * 3
    assert [c.name for c in plan.contenders] == [c.contender for c in plan.combinations[1:] if c.refused is None]
    refused = [c for c in plan.combinations if c.refused]
    assert len(refused) == 2 * 2 * 2 and all({"forecast", "towers"} <= set(c.parts) for c in refused)
    assert all(c.refused and "both take the forecast of a pipeline" in c.refused for c in refused)


def test_what_this_pipeline_cannot_do_is_refused_and_leaves_it_as_it_was(bench: Bench) -> None:
    from diffusers import DDPMScheduler

    bench.loaded.pipe.scheduler = before = DDPMScheduler.from_config({"prediction_type": "score"})
    plan = plan_matrix(bench, REQUEST, ["forecast", "solver"])
    with_solver = [c for c in plan.combinations if "solver" in c.parts]
    assert with_solver and all(c.refused for c in with_solver)
    assert bench.loaded.pipe.scheduler is before
    assert all(not m._forward_hooks for m in bench.loaded.pipe.transformer.modules())


def test_axes_are_restricted_to_what_is_asked_for(bench: Bench) -> None:
    known = list(plan_matrix(bench, REQUEST, ["forecast"]).axes[0].choices)
    plan = plan_matrix(bench, REQUEST, [f"forecast={known[1]}", "solver"])
    assert [axis.name for axis in plan.axes] == ["forecast", "solver"]
    assert [c.parts for c in plan.combinations] == [
        {},
        {"solver": "solver"},
        {"forecast": known[1]},
        {"forecast": known[1], "solver": "solver"},
    ]
    with pytest.raises(UnknownNameError, match=r"no choice 'gated'.*did you mean"):
        plan_matrix(bench, REQUEST, ["forecast=gated"])
    with pytest.raises(InputError, match=r"nothing to combine.*attention: no effect"):
        plan_matrix(bench, REQUEST, ["attention"])
    with pytest.raises(InputError, match="given twice"):
        read_axes(["solver", "solver"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dit", "--axis", "forecast"], "--axis belongs to --matrix"),
        (["dit", "--matrix", "--axis", "forcast"], "did you mean 'forecast'"),
        (["dit", "--matrix", "--axis", "solver", "--axis", "solver"], "given twice"),
    ],
)
def test_slips_end_in_one_line(words: list[str], message: str) -> None:
    ended = run(*words)
    assert ended.exit_code == 2
    assert message in ended.output and "Traceback" not in ended.output


@pytest.mark.parametrize(
    "methods",
    [
        [GatedTaylor(threshold=0.2, exact=True), AdaSpa(recall=0.8, searches=(0.1, 0.5), min_gain=0.0, tile=False)],
        [Solver(solver="unipc"), IntervalTaylor(interval=4)],
        [Solver()],
    ],
)
def test_a_spelt_combination_reads_back_as_it_was(methods: list[Any]) -> None:
    assert parse_combination(spell_combination(methods)) == methods


def test_bricks_are_calibrated_only_where_they_are_named(bench: Bench) -> None:
    assert "bricks" not in {axis.name for axis in plan_matrix(bench, REQUEST).axes}
    assert not bench.bricks
    plan = plan_matrix(bench, REQUEST, ["bricks=bricks-0.3", "forecast"])
    assert bench.bricks and len(plan.combinations) == 2 * 3
    spelt = next(c.method for c in plan.combinations if c.parts == {"bricks": "bricks-0.3"})
    assert spelt is not None and spelt.startswith("bricks:schedule=")
    assert not any(c.refused for c in plan.combinations)
