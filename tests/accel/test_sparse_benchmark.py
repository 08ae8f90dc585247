"""What benchmarks of sparse attention make of their measurements, and that pages and predictions are of them."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path
from statistics import fmean
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from outpace.accel.estimate.predict import MEASURED_DENSITY, RIVALS

ROOT = Path(__file__).resolve().parent.parent.parent


def loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look for their types
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def beside() -> ModuleType:
    return loaded("sparse_attention")


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    return loaded("sparse_attention_page")


@pytest.fixture(scope="module")
def dropped() -> ModuleType:
    return loaded("sparse_dropped")


def held(benchmark: ModuleType) -> dict[str, Any]:
    return json.loads(benchmark.RESULT.read_text(encoding="utf-8"))


def test_the_pages_are_what_was_measured(pages: ModuleType, dropped: ModuleType) -> None:
    for benchmark in (pages, dropped):
        assert benchmark.PAGE.read_text(encoding="utf-8") == benchmark.page(held(benchmark))


def test_what_the_guide_says_of_forecasts_was_measured(pages: ModuleType) -> None:
    guide = (ROOT / "docs" / "sparse_attention.md").read_text(encoding="utf-8")
    assert "\n".join(pages.together(held(pages)["prompts"])) in guide


def test_estimates_go_by_what_was_measured(pages: ModuleType) -> None:
    made = held(pages)["prompts"]
    row = next(row for row in pages.rows(made) if row["name"] == "AdaSpa, recall 0.99")
    found = {name: round(speedup, 2) for name, speedup in pages.as_close(made, row).items()}
    assert {name.replace("a scheduled forecast", "scheduled"): speedup for name, speedup in RIVALS.items()} == found
    assert round(fmean(one[row["name"]]["density"] for one in made.values()), 2) == MEASURED_DENSITY


def made_of(*lines: tuple[str, float, float]) -> dict[str, dict[str, Any]]:
    """Two prompts, the second 2 dB further from the plain clip in every way."""
    return {
        prompt: {"plain": {"seconds": 1.0}} | {name: {"speedup": s, "psnr": q - less} for name, s, q in lines}
        for prompt, less in (("a", 0.0), ("b", 2.0))
    }


def test_a_way_stands_beside_a_curve_at_its_own_speed_within_a_prompt(pages: ModuleType) -> None:
    made = made_of(("10 steps", 1.2, 50.0), ("5 steps", 1.2 * 4, 40.0), ("AdaSpa", 1.2 * 2, 46.0), ("other", 1.1, 60.0))
    made["b"]["AdaSpa"]["psnr"] = 42.0
    table = pages.rows(made)
    rows = {row["name"]: row for row in table}
    assert (rows["AdaSpa"]["psnr"], rows["AdaSpa"]["speedup"]) == (44.0, 2.4)
    of = pages.CURVES["fewer steps"]
    assert pages.beside(made, table, rows["AdaSpa"], of) == pytest.approx([1.0, -1.0])
    assert pages.beside(made, table, rows["other"], of) == []  # nothing of the curve is as slow
    for name, off in (("10 steps", 1.0), ("5 steps", 1.0), ("AdaSpa", 4.0)):
        made["a"][name]["converged"] = made["a"][name]["psnr"] - off
    assert pages.beside(made, table, rows["AdaSpa"], of, "converged") == pytest.approx([-2.0])  # of the prompt held
    assert pages.ahead([1.0, -1.0, 3.0]) == "+1.0 ± 1.2 (2 of 3)" and pages.ahead([]) == ""


def test_where_it_would_be_even(pages: ModuleType) -> None:
    made = made_of(("scheduled 1.5", 1.25, 50.0), ("scheduled 2", 2.0, 40.0), ("AdaSpa", 1.25, 45.0))
    for one in made.values():
        one["AdaSpa"]["work"] = 0.5
    made["c"] = {name: facts for name, facts in made["a"].items() if name != "AdaSpa"}  # not made there: left out
    made["c"]["scheduled 2"] = {"speedup": 5.0, "psnr": 5.0}
    row = next(row for row in pages.rows(made) if row["name"] == "AdaSpa")
    close = pages.as_close(made, row)
    assert close == {"scheduled": pytest.approx(math.sqrt(1.25 * 2.0))}  # halfway down, on a logarithmic line
    # Of 0.5 of the time 0.4 is saved, which makes 1.25x. For 1.58x it takes 0.3675 of the time, which is 0.735 of it.
    least, most = pages.even(0.5, close["scheduled"], 0.4)
    assert most == pytest.approx((1 - 1 / math.sqrt(2.5)) / 0.5)
    assert least == pytest.approx((1 - 1 / math.sqrt(2.5)) / 0.4)
    (line,) = pages.break_even(made, 0.5, 1000)
    assert f"{least:.2f}, {1000 * least / (1 - least):.0f} tokens" in line


def test_putting_back_is_exact_where_nothing_moved_or_nothing_is_dropped(dropped: ModuleType) -> None:
    generator = torch.Generator().manual_seed(3)
    q, k, v, later = (torch.randn(256, 8, generator=generator, dtype=torch.float64) for _ in range(4))
    dense = (q @ k.mT * 8**-0.5).softmax(1) @ v
    now = dropped.Blocks.of(q, k, v)
    keep = torch.tensor([[True, True, False, True], [False, True, True, False]]).repeat_interleave(128, 0)
    out = dropped.outputs(now, now, keep)
    hidden = (q @ k.mT * 8**-0.5).masked_fill(~keep.repeat_interleave(64, 1), -torch.inf)
    torch.testing.assert_close(out["dropped"], hidden.softmax(1) @ v)
    for way in ("kept output", "kept part"):
        torch.testing.assert_close(out[way], dense)
    assert set(out) == set(dropped.WAYS)
    for way, made in dropped.outputs(now, dropped.Blocks.of(later, k, v), torch.ones_like(keep)).items():
        torch.testing.assert_close(made, dense, msg=way)
    same = torch.randn(4, 8, generator=generator, dtype=torch.float64).repeat_interleave(64, 0)
    blocks = dropped.Blocks.of(q, same, v)
    torch.testing.assert_close(
        dropped.outputs(blocks, blocks, keep)["pooled"], (q @ same.mT * 8**-0.5).softmax(1) @ v
    )  # keys of a block that are all alike lose nothing by their mean


def test_clips_are_held_against_the_converged_one_and_lost_ones_made_again(
    beside: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clips, asked, made = beside.Clips(tmp_path / "clips"), [], {beside.CONVERGED: 0.0, 12: 0.1, 5: 0.2}

    def clip(pipe: Any, prompt: str, seed: int, way: Any, call: Any) -> tuple[np.ndarray, dict[str, Any]]:
        asked.append((prompt, seed, way[0], [method.name for method in way[1]]))
        return np.full((2, 2), made[way[0]]), {}

    monkeypatch.setattr(beside, "clip", clip)
    every = {"plain": (12, ()), "6 steps": (6, ()), "5 steps": (5, ()), "4 steps": (4, ())}
    found: dict[str, Any] = {"plain": {"seconds": 1.0}, "6 steps": {"psnr": 30.0}, "5 steps": {"psnr": 20.0}}
    clips.keep(7, "6 steps", np.full((2, 2), 0.01))
    assert beside.converge(None, "a", 7, every, {}, found, clips)
    assert [one[2:] for one in asked] == [(12, []), (beside.CONVERGED, ["solver"]), (5, [])]
    assert {one[:2] for one in asked} == {("a", 7)}
    for name, quality in (("plain", 20.0), ("6 steps", 40.0), ("5 steps", -20 * math.log10(0.2))):
        assert found[name]["converged"] == pytest.approx(quality)
    assert not beside.converge(None, "a", 7, every, {}, found, clips) and len(asked) == 3
    found["4 steps"], made[4] = {"psnr": 20.0}, 0.25  # 16.5 dB from the plain clip
    with pytest.raises(RuntimeError, match=r"4 steps of 'a' was 20\.000 dB .* 16\.478 now"):
        beside.converge(None, "a", 7, every, {}, found, clips)
    assert "converged" not in found["4 steps"] and clips.of(7, "4 steps") is None
    assert [one[2] for one in asked[3:]] == [4], "the converged clip is kept"
