"""The command from end to end on a tiny random pipeline: plumbing, counting, continuing, failing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from outpace.cli import main
from outpace.cli.answering import Bench, blocks_of
from outpace.errors import UnknownNameError
from outpace.evaluation import Request

METHODS = "gated-budget-0.5,interval-2,steps-4,first-block-cache-0.1"


def run(*words: str) -> Result:
    return CliRunner().invoke(main, ["compare", *words])


@pytest.fixture
def bench(tiny_pipe) -> Bench:
    from outpace.pipelines.load import Loaded, Source

    loaded = Loaded(pipe=tiny_pipe, source=Source(name="tiny", kind="folder"), prompt_argument="class_labels")
    return Bench(loaded=loaded, arguments={"num_inference_steps": 8, "guidance_scale": 2.0})


def requests(count: int) -> list[Request]:
    return [Request(index=i, prompt=i, seed=i) for i in range(count)]


def test_one_command_compares_reports_and_continues(tiny_folder: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("1\n2\n3\n", encoding="utf-8")
    words = [str(tiny_folder), "--prompts", str(prompts), "--methods", METHODS, "--steps", "8", "--batch", "2"]
    words += ["--timing-prompts", "1", "--out", str(tmp_path / "out"), "--device", "cpu"]
    first = run(*words, "--json")
    assert first.exit_code == 0, first.output
    told = json.loads(first.stdout)
    found = {c["name"]: c for c in told["contenders"]}
    assert list(found) == ["plain", "converged", *METHODS.split(",")]
    assert found["plain"]["blocks"] == pytest.approx(6 * 8) and found["steps-4"]["speedup"]["value"] == pytest.approx(
        2.0
    )
    assert found["interval-2"]["blocks"] < found["plain"]["blocks"] < found["converged"]["blocks"]
    assert "no enable_cache" in found["first-block-cache-0.1"]["error"]
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert "ssim" not in found["steps-4"]["metrics"]["plain"]  # 8 x 8 pixels are too few for its window
    assert results["command"].startswith(f"outpace compare {tiny_folder}")
    assert "--timing-prompts 1" in results["command"]
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "cells").rglob("*.json")}
    again = run(*words)
    assert again.exit_code == 0 and "Report:" in again.output and "FirstBlockCache, threshold 0.1" in again.output
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "cells").rglob("*.json")} == kept
    repeated = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert repeated["contenders"] == results["contenders"]
    assert (tmp_path / "out" / "report.html").is_file() and (tmp_path / "out" / "results.md").is_file()


def test_counting_from_outside_agrees_with_the_trace(bench: Bench) -> None:
    from outpace.accel import GatedTaylor, accelerate

    bench.calibrate(requests(1)[0])
    with accelerate(bench.loaded.pipe, GatedTaylor(threshold=2.0, gate="budget")) as handle:
        with bench.meter.counting() as calls:
            bench.run(requests(3), 8)
        trace = handle.trace.as_dict()
    told = sum(blocks_of(trace, sample) for sample in range(3))
    assert told == pytest.approx(trace["totals"]["blocks"])
    assert told < trace["totals"]["blocks_plain"]
    assert bench.meter.blocks(calls, 3) * 3 == pytest.approx(told, rel=1e-6)


def test_a_sample_does_not_depend_on_its_batch_and_nothing_is_left_behind(bench: Bench) -> None:
    import numpy as np

    together = bench.answer(requests(3), 8)
    alone = bench.answer(requests(3)[2:], 8)
    np.testing.assert_allclose(together[2].media, alone[0].media, atol=1e-5)
    assert together[2].latents is not None and alone[0].latents is not None
    np.testing.assert_allclose(together[2].latents, alone[0].latents, atol=1e-5)
    assert "decode" not in vars(bench.loaded.pipe.vae)
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in bench.loaded.pipe.transformer.modules())


def test_every_named_curve_can_be_built_and_names_are_unique(bench: Bench) -> None:
    from outpace.cli.contenders import all_curves, build_contenders

    built = build_contenders(bench, "all")
    assert len({c.name for c in built}) == len(built)
    for name in all_curves():
        chosen = build_contenders(bench, name)
        assert len(chosen) > 3 and {c.name for c in chosen} <= {c.name for c in built}
    assert {c.name for c in build_contenders(bench, "main")} < {c.name for c in built}
    with pytest.raises(UnknownNameError, match="did you mean 'gated'"):
        build_contenders(bench, "gatd")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dit", "--prompts", "0"], "at least one prompt"),
        (["dit", "--prompts", "nowhere.txt"], "cannot read the prompts file"),
        (["dit", "--steps", "0"], "--steps"),
        (["nothing-here"], "no pipeline 'nothing-here'"),
        (["dit", "--out", "/proc/none/here"], "cannot write"),
    ],
)
def test_slips_end_in_one_line(words: list[str], message: str) -> None:
    ended = run(*words)
    assert ended.exit_code == 2
    assert message in ended.output and "Traceback" not in ended.output


def test_a_pipeline_without_prompts_of_its_own_asks_for_a_file(tiny_folder: Path, tmp_path: Path) -> None:
    ended = run(str(tiny_folder), "--prompts", "4", "--out", str(tmp_path / "out"))
    assert ended.exit_code == 2 and "--prompts FILE" in ended.output
    assert not (tmp_path / "out").exists()
