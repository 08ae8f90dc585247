"""Two processes that share a transformer decide as one would, or together; those that do not are left alone."""

from __future__ import annotations

import json
import math
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import Forked
from tiny import TinyPipeline
from two_ranks import decided, main, methods

from outpace.accel import IntervalTaylor, ScheduledTaylor, accelerate
from outpace.accel.methods.scheduled_taylor import SchedulePolicy
from outpace.accel.ranks import Ranks, every, ranks_of
from outpace.errors import ConflictError

SECONDS = 120
"""Two processes end in this time; no exchange between them may wait longer than 20 seconds."""

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not (torch.distributed.is_available() and torch.distributed.is_gloo_available()),
    reason="needs gloo, and processes that are copies of this one",
)


def run(job: str, cls: str, folder: Path) -> list[dict[str, Any]]:
    """What two processes print; they are ended where one does not end by itself."""
    ranks = [Forked(partial(main, job, cls, rank, str(folder / "meet")), folder / f"rank{rank}") for rank in range(2)]
    with ranks[0] as one, ranks[1] as two:
        codes = [one.wait(SECONDS), two.wait(SECONDS)]
        assert codes == [0, 0], one.err[-2000:] + two.err[-2000:]
        return [json.loads(rank.out.split("RESULT")[1]) for rank in ranks]


@pytest.mark.parametrize(
    "cls", ["WanTransformer3DModel", pytest.param("FluxTransformer2DModel", marks=pytest.mark.slow)]
)
def test_parts_of_one_sample_are_decided_as_by_one_process(cls: str, tmp_path: Path) -> None:
    """Ulysses; diffusers' ring asks its attention for what only that of a GPU returns."""
    one, two = run("ulysses", cls, tmp_path)
    assert one["errors"][0][0] != one["errors"][1][0], "each process measures its own part"
    for name, method in methods(one["between"]).items():
        alone = decided(TinyPipeline(cls), method, [0])
        for rank in (one, two):
            mine = rank["found"][name]
            assert mine["computed"] == alone["computed"], name
            for (got,), (want,) in zip(mine["errors"], alone["errors"], strict=True):
                assert (got is None) == (want is None), name
                assert got is None or got == pytest.approx(want, rel=1e-3, abs=1e-6), name
            out, plain = torch.tensor(mine["out"]), torch.tensor(alone["out"])
            assert (out - plain).abs().max() <= 1e-3 * plain.abs().max(), name
    assert any(not all(all(c) for c in mine["computed"]) for mine in one["found"].values()), "something was forecast"


def test_where_weights_are_sharded_one_that_computes_makes_all_compute(tmp_path: Path) -> None:
    cls = "WanTransformer3DModel"
    ranks = run("sharded", cls, tmp_path)
    reasons = []
    for name, method in methods(ranks[0]["between"]).items():
        one, two = (rank["found"][name] for rank in ranks)
        assert one["computed"] == two["computed"], name
        reasons += [reason for mine in (one, two) for call in mine["reasons"] for reason in call]
        for rank, mine in enumerate((one, two)):
            alone = decided(TinyPipeline(cls), method, [rank + 1])
            if alone["computed"] == mine["computed"]:
                out, plain = torch.tensor(mine["out"]), torch.tensor(alone["out"])
                assert (out - plain).abs().max() <= 1e-3 * plain.abs().max(), name
    assert "another process computes" in reasons, "the threshold lay between them"


def test_branches_of_guidance_on_two_processes_are_decided_together(tmp_path: Path) -> None:
    cls = "WanTransformer3DModel"
    one, two = run("branches", cls, tmp_path)
    assert one["found"]["apart"]["computed"] != two["found"]["apart"]["computed"], "the threshold lay between them"
    mine, other = one["found"]["together"], two["found"]["together"]
    assert mine["computed"] == other["computed"] and mine["out"] == other["out"]
    assert "another process computes" in mine["reasons"] + other["reasons"]
    assert not all(mine["computed"]), "something was forecast"
    # One process decides by its first branch: where that computes, both do here, and perhaps elsewhere.
    pipe = TinyPipeline(cls)
    with accelerate(pipe, methods(one["between"])["between"]) as alone:
        plain = pipe([0], steps=len(mine["computed"]), guidance="separate")
    decided_alone = [call.computed[0] for call in alone.trace.calls if call.branch == "0"]
    if decided_alone == mine["computed"]:
        out = torch.tensor(mine["out"])
        assert (out - plain.flatten()).abs().max() <= 1e-3 * plain.abs().max()
    first = decided_alone.index(False)
    assert mine["computed"][:first] == decided_alone[:first]


def test_processes_decide_together_only_where_there_are_any_with_a_copy_each() -> None:
    with accelerate(TinyPipeline("WanTransformer3DModel"), IntervalTaylor()) as alone, pytest.raises(ConflictError):
        alone.together()


@pytest.mark.slow
def test_ring_attention_is_refused_by_diffusers_on_this_device_with_and_without(tmp_path: Path) -> None:
    """Nothing of ours hides it, and neither process waits for the other: a GPU is needed to say more."""
    for told in run("ring", "WanTransformer3DModel", tmp_path):
        plain, accelerated = told["said"]
        assert plain == accelerated != "runs"


@pytest.mark.slow
def test_whole_copies_are_left_alone(tmp_path: Path) -> None:
    cls = "WanTransformer3DModel"
    for rank, told in enumerate(run("data", cls, tmp_path)):
        for name, method in methods(told["between"]).items():
            alone = decided(TinyPipeline(cls), method, [rank + 1])
            assert told["found"][name]["computed"] == alone["computed"], name
            assert told["found"][name]["reasons"] == alone["reasons"], name


@pytest.mark.parametrize("branches", [False, True])
def test_a_picture_that_other_processes_guide_says_nothing_by_its_size(
    branches: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[float] = []
    monkeypatch.setattr(SchedulePolicy, "sized", lambda self, off: told.append(off))
    pipe = TinyPipeline("FluxTransformer2DModel")
    with accelerate(pipe, ScheduledTaylor(speedup=2.0)) as run:
        for denoiser in run._denoisers:
            denoiser.ranks = Ranks(groups=(), branches=branches)
        pipe([0, 1], steps=6)
    assert [math.isinf(off) for off in told] == [branches] * 2


def test_a_process_by_itself_shares_with_nobody() -> None:
    assert ranks_of(TinyPipeline("WanTransformer3DModel").transformer) is None


@pytest.mark.parametrize(("tokens", "wanted"), [(4, 512), (300, 64), (512, 100)])
def test_the_tokens_looked_at_are_those_of_one_process(
    tokens: int, wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranks = Ranks(groups=(), parts="two")
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda group: 2)
    looked_at = []
    for rank in range(2):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda group, rank=rank: rank)
        looked_at += torch.arange(rank * tokens, (rank + 1) * tokens)[every(wanted, tokens, ranks)].tolist()
    assert looked_at == torch.arange(2 * tokens)[every(wanted, 2 * tokens, None)].tolist()
