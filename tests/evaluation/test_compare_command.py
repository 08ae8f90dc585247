"""The command from end to end on a tiny random pipeline: plumbing, counting, continuing, failing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from closeness import assert_same_but_rounding

from outpace.cli import main
from outpace.cli.contenders.bench import Bench, blocks_of
from outpace.errors import UnknownNameError
from outpace.evaluation import Request

METHODS = "gated-budget-0.55,interval-2,steps-4,first-block-cache-0.1"


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
    assert (tmp_path / "out" / "report.html").is_file() and (tmp_path / "out" / "report.md").is_file()


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

    together = bench.answer(requests(3), 8)
    alone = bench.answer(requests(3)[2:], 8)
    assert together[2].latents is not None and alone[0].latents is not None
    for one, other in ((together[2].media, alone[0].media), (together[2].latents, alone[0].latents)):
        assert_same_but_rounding(one, other)
    assert "decode" not in vars(bench.loaded.pipe.vae)
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in bench.loaded.pipe.transformer.modules())


def test_calibrations_do_not_depend_on_the_batch_that_comes_first(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[int] = []
    monkeypatch.setattr(Bench, "run", lambda _, requests, steps: seeds.extend(r.seed for r in requests))
    bench.yardstick = requests(1)[0]
    bench.rehearse(requests(5)[4])
    bench.calibrate(requests(5)[4])
    assert seeds == [1_000_003, 0]


def test_every_named_curve_can_be_built_and_names_are_unique(bench: Bench) -> None:
    from outpace.cli.contenders.choose import all_curves, build_contenders

    built = build_contenders(bench, "all")
    assert len({c.name for c in built}) == len(built)
    for name, curve in all_curves().items():
        chosen = build_contenders(bench, name)
        assert len(chosen) > 3
        if not curve.named:
            assert {c.name for c in chosen} <= {c.name for c in built}
    assert not any("sparse" in c.kind or "bricks" in c.kind for c in built)
    assert {c.name for c in build_contenders(bench, "main")} < {c.name for c in built}
    with pytest.raises(UnknownNameError, match="did you mean 'gated'"):
        build_contenders(bench, "gatd")


def test_schedules_are_calibrated_when_asked_and_on_prompts_that_no_figure_is_read_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from outpace.accel import ScheduledTaylor
    from outpace.cli.contenders.choose import build_contenders

    bench.yardstick = requests(1)[0]
    real, asked = ScheduledTaylor.calibrate, []

    def cheap(pipe, prompts, *, seed, **named):
        asked.append((list(prompts), seed, named["speedup"], named["num_inference_steps"], named["guidance_scale"]))
        return real(pipe, prompts[:2], seed=seed, cost=4, **named)

    monkeypatch.setattr(ScheduledTaylor, "calibrate", cheap)
    built = {c.name: c for c in build_contenders(bench, "scheduled-calibrated", [], 0)}
    assert not asked and all(built[f"scheduled-calibrated-{x:g}"].settings["speedup"] == x for x in (2, 2.5, 3, 4, 6))
    chosen = built["scheduled-calibrated-4"]
    (made,) = chosen.generate(requests(1))
    assert asked == [([0] * 8, 1_000_003, 4.0, 8, 2.0)] and made.blocks == pytest.approx(6 * 2)
    chosen.generate(requests(1))
    assert len(asked) == 1


@pytest.fixture(scope="module")
def long_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pipeline whose attention runs over 256 tokens: 16 blocks of 16."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel

    torch.manual_seed(0)
    transformer = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=3, sample_size=16,
        patch_size=1, num_embeds_ada_norm=1000, norm_elementwise_affine=False,
    )  # fmt: skip
    for name, weight in transformer.named_parameters():
        if "linear" in name and weight.ndim > 1:  # adaLN starts at zero, and every block would be an identity
            torch.nn.init.normal_(weight, std=0.1)
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4, sample_size=16)
    folder = tmp_path_factory.mktemp("long") / "dit"
    pipe = DiTPipeline(transformer.eval(), vae.eval(), DDIMScheduler())  # pyright: ignore[reportArgumentType]
    pipe.save_pretrained(folder)
    return folder


def test_methods_asked_for_take_part_with_what_their_attention_left_out(long_folder: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("1\n2\n", encoding="utf-8")
    words = [str(long_folder), "--prompts", str(prompts), "--steps", "10", "--converged-steps", "12", "--methods"]
    words += ["steps-6", "--timing-prompts", "1", "--out", str(tmp_path / "out"), "--device", "cpu"]
    for target in ("recall=0.6", "recall=0.9"):
        words += ["--method", f"adaspa:{target},min_tokens=1,min_gain=0,block=16"]
    words += ["--method", "threshold=1 + adaspa:recall=0.6,min_tokens=1,min_gain=0,block=16"]
    words += ["--method", "adaspa:recall=0.6"]  # 256 tokens are fewer than its least
    ran = run(*words, "--json")
    assert ran.exit_code == 0, ran.output
    told = json.loads(ran.stdout)
    less, more, both, short = (c for c in told["contenders"] if "AdaSpa" in c["label"])
    attention = less["attention"]
    assert less["blocks"] == more["blocks"] == 3 * 10 and less["work"] < more["work"]
    assert both["kind"] == "gated+sparse" and both["blocks"] < 3 * 10 and both["work"] < both["blocks"]
    assert len(attention["layers"]) == 3 and attention["heads"] == 2 and attention["tokens"] == 256
    assert all(0 < d <= 1 for row in attention["density"] for d in row)
    assert attention["totals"]["least_recall"] >= 0.6 - 1e-6
    assert attention["totals"]["calls"]["sparse"] > attention["totals"]["calls"]["mass"]
    work = 1 - attention["share"] * (1 - attention["totals"]["work"])
    assert less["speedup"]["value"] == pytest.approx(1 / work, rel=1e-6)
    assert short["work"] == short["blocks"] and any("256 tokens" in w for w in short["attention"]["warnings"])
    assert all(c["time"] for c in (less, more, both, short))
    assert [line.split(":")[0] for line in told["verdict"]["attention"]] == [
        c["label"] for c in (less, more, both, short)
    ]
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert results["command"].count("--method ") == 4 and results["speedups"][0] == 1.25
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert page.count('<rect class="cell') == 3 * 3 * 2 and 'id="attention"' in page
    again = run(*words)
    assert again.exit_code == 0 and "Attention:" in again.output


def test_a_method_alone_stands_beside_fewer_steps_and_the_converged_reference_can_be_left_out(bench: Bench) -> None:
    from outpace.cli.contenders.choose import build_contenders

    built = build_contenders(bench, "fewer-steps,fewer-steps-slightly", ["adaspa:recall=0.9"], 0)
    assert [c.name for c in built[:2]] == ["plain", "adaspa-recall-0.9"]
    assert built[1].shown and built[1].batch == 1
    assert {c.kind for c in built[2:]} == {"fewer-steps"} and {c.curve for c in built[2:]} == {"fewer steps"}
    assert [c.name for c in build_contenders(bench, "none", [], 0)] == ["plain"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dit", "--method", "adaspa:recall=1.5"], "recall must be"),
        (["dit", "--method", "adspa"], "did you mean 'adaspa'"),
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
