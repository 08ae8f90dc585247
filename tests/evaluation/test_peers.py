"""Every peer on a trained pipeline: it answers or says why not, and leaves nothing behind for the next."""

from __future__ import annotations

from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from outpace.cli.contenders.bench import Bench
from outpace.cli.contenders.choose import build_contenders
from outpace.cli.contenders.peers import peer_curve
from outpace.evaluation import Request, Study, build_results, run_study
from outpace.evaluation.peers import PEERS, Peer
from outpace.evaluation.report.verdict import verdict

STEPS = 10


@pytest.fixture(scope="module")
def bench() -> Bench:
    """The shipped FLUX pocket: diffusers' own classes with trained weights, a fifth of a second a run."""
    from outpace.pipelines.load import call_arguments, load_pipeline

    loaded = load_pipeline("flux", device="cpu")
    loaded.pipe.set_progress_bar_config(disable=True)
    return Bench(loaded=loaded, arguments=call_arguments(loaded, steps=STEPS))


@pytest.fixture(scope="module")
def request_one(bench: Bench) -> list[Request]:
    return [Request(index=0, prompt=bench.loaded.pocket.prompts(1, "held_out")[0], seed=0)]


@pytest.fixture(scope="module")
def plain(bench: Bench, request_one: list[Request]) -> np.ndarray:
    return bench.answer(request_one, STEPS)[0].media


@pytest.mark.parametrize("name", list(PEERS))
def test_every_peer_answers_alike_whoever_ran_before_and_leaves_the_pipeline_as_it_was(
    name: str, bench: Bench, request_one: list[Request], plain: np.ndarray
) -> None:
    if name.startswith("cache-dit") and find_spec("cache_dit") is None:
        pytest.skip("cache-dit is not installed (extra 'peers')")
    denoiser = bench.loaded.pipe.transformer
    order, forward = list(denoiser._modules), denoiser.forward
    curve = peer_curve(name)(bench)
    assert len({c.name for c in curve}) == len(PEERS[name].settings) >= 4
    made = curve[-1].generate(request_one)[0]
    again = curve[-1].generate(request_one)[0]
    assert np.isfinite(made.media).all() and 0 < made.blocks
    np.testing.assert_array_equal(made.media, again.media)
    if name != "seacache":  # in diffusers it reads the step from Wan's pipeline only, and computes everything elsewhere
        assert not np.array_equal(made.media, plain)
    np.testing.assert_array_equal(bench.answer(request_one, STEPS)[0].media, plain)
    assert list(denoiser._modules) == order and denoiser.forward.__func__ is forward.__func__
    assert not any(vars(m).get("_diffusers_hook") and m._diffusers_hook.hooks for m in denoiser.modules())


def test_magcache_reads_its_ratios_off_one_run_of_another_prompt(bench: Bench, request_one: list[Request]) -> None:
    seen = []
    ratios = PEERS["magcache"].prepare(bench.loaded.pipe, STEPS, lambda: seen.append(bench.rehearse(request_one[0])))
    assert len(seen) == 1 and ratios["steps"] == len(ratios["ratios"]) == STEPS
    assert ratios["ratios"][0] == 1.0 and all(0.2 < r < 5 for r in ratios["ratios"])


def test_a_peer_that_is_not_installed_says_how_to_get_it(
    bench: Bench, request_one: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outpace.evaluation.peers.cache_dit.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"outpace\[peers\]"):
        peer_curve("cache-dit")(bench)[0].generate(request_one)


def test_a_toy_peer_is_one_registration_and_one_that_fails_is_reported(
    bench: Bench, request_one: list[Request], tmp_path: Path
) -> None:
    def broken(pipe: object, *, level: int) -> object:
        raise RuntimeError("no such kernel")

    PEERS.add("idle", Peer(label="Idle", settings=({"level": 1},), apply=lambda pipe, level: nullcontext(pipe)))
    PEERS.add("broken", Peer(label="Broken", settings=({"level": 1}, {"level": 2}), apply=broken))
    try:
        study = Study(
            contenders=build_contenders(bench, "idle,broken", (), 0),
            requests=request_one,
            folder=tmp_path,
            converged=None,
        )
        rows = run_study(study, progress=False)
        results = build_results(study, rows, pipeline={"steps": STEPS}, command="", environment={})
        found = {c["name"]: c for c in results["contenders"]}
        assert found["idle-1"]["speedup"]["value"] == 1.0
        assert found["broken-1"]["error"] == "RuntimeError: no such kernel"
        gaps = verdict(results)["gaps"]
        assert "Broken (2 settings) did not run: RuntimeError: no such kernel" in gaps
        assert "Idle, level 1 had no effect here: every block was computed" in gaps
    finally:
        PEERS.remove("idle")
        PEERS.remove("broken")
