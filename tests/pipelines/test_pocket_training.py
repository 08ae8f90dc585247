"""The training loop: a killed run ends like an uninterrupted one, and two processes do what one does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from outpace.errors import ConfigError
from outpace.pipelines.pocket.training import FitSettings, average_weights, first_process_first, fit, join_processes

SETTINGS = FitSettings(steps=24, batch=4, rate=1e-2, muon_rate=1e-2, warmup=4, autocast=False, checkpoint_seconds=0.0)


SCRIPT = """
import importlib.util, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("here", sys.argv[1])
here = importlib.util.module_from_spec(spec)
spec.loader.exec_module(here)
"""
"""Runs a function of this file in a process of its own."""


def environment(root: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}


def small_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.GELU(), nn.Linear(8, 2))


def train(folder: Path, *, settings: FitSettings = SETTINGS, dies_at: int | None = None, stop_after: int | None = None):
    model = small_model()
    seen = 0

    def loss_of(generator: torch.Generator, batch: int) -> torch.Tensor:
        nonlocal seen
        if seen == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        seen += 1
        given = torch.randn(batch, 3, generator=generator)
        return (model(given) - 2 * given[:, :2]).square().mean()

    result = fit(
        "part",
        model,
        loss_of,
        settings,
        folder,
        matrices=[model[2].weight],
        progress=False,
        stop_after=stop_after,
    )
    return result, model.state_dict()


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[key], second[key]) for key in first)


def test_training_lowers_the_loss_and_logs_what_it_took(tmp_path: Path):
    before = small_model().state_dict()
    result, after = train(tmp_path)
    assert result.steps == 24 and result.samples == 96 and result.cpu_seconds >= 0
    assert not same(before, after)
    logged = json.loads((tmp_path / "part.json").read_text(encoding="utf-8"))
    assert logged["result"]["steps"] == 24 and logged["settings"]["rate"] == 1e-2
    longer, _ = train(tmp_path / "longer", settings=replace(SETTINGS, steps=200))
    assert longer.loss < 0.5 * result.loss


def test_an_interrupted_run_ends_like_an_uninterrupted_one(tmp_path: Path):
    _, whole = train(tmp_path / "whole")
    first, _ = train(tmp_path / "parts", stop_after=7)
    assert first.steps == 7
    second, _ = train(tmp_path / "parts", stop_after=1)
    assert second.steps == 8
    last, resumed = train(tmp_path / "parts")
    assert last.steps == 24
    assert same(whole, resumed)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs a system with SIGKILL")
def test_a_run_killed_without_warning_ends_like_an_uninterrupted_one(tmp_path: Path, root: Path):
    killed = subprocess.run(
        [sys.executable, "-c", SCRIPT + "here.train(Path(sys.argv[2]), dies_at=9)", __file__, str(tmp_path / "killed")],
        env=environment(root),
        timeout=120,
    )
    assert killed.returncode == -signal.SIGKILL
    assert torch.load(tmp_path / "killed" / "part.pt", weights_only=False)["state"]["step"] == 9
    result, resumed = train(tmp_path / "killed")
    _, whole = train(tmp_path / "whole")
    assert result.steps == 24
    assert same(whole, resumed)


def test_a_finished_run_is_loaded_not_repeated(tmp_path: Path):
    _, trained = train(tmp_path)
    result, again = train(tmp_path, dies_at=0)
    assert result.steps == 24
    assert same(trained, again)
    model = small_model()
    assert average_weights(tmp_path, "part", model) == 24
    assert same(trained, model.state_dict())


def test_other_settings_are_refused_rather_than_mixed(tmp_path: Path):
    train(tmp_path, stop_after=2)
    with pytest.raises(ConfigError, match="other settings"):
        train(tmp_path, settings=replace(SETTINGS, rate=2e-2))


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path):
    model = small_model()
    with pytest.raises(ConfigError, match="not finite at step 0"):
        fit(
            "part",
            model,
            lambda generator, batch: model(torch.full((1, 3), float("nan"))).sum(),
            SETTINGS,
            tmp_path,
            progress=False,
        )


def test_a_budget_in_seconds_ends_the_run_early(tmp_path: Path):
    result, _ = train(tmp_path, settings=replace(SETTINGS, steps=10**7, budget_seconds=0.2))
    assert 0 < result.steps < 10**6


def test_one_process_waits_for_nobody():
    with first_process_first():
        entered = True
    assert entered


def train_share(rank: int, world: int, folder: Path) -> dict[str, torch.Tensor]:
    """What process `rank` of `world` ends with, each on its share of the same eight samples."""
    join_processes(rank, world, folder)
    with first_process_first():
        if rank == 0:
            folder.mkdir(exist_ok=True)
            (folder / "written").touch()
        assert (folder / "written").exists()
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    data = torch.randn(8, 3)

    def loss_of(generator: torch.Generator, batch: int) -> torch.Tensor:
        mine = data[rank * batch : (rank + 1) * batch]
        return (model(mine) - mine[:, :2] ** 2).square().mean()

    settings = FitSettings(steps=12, batch=8, rate=1e-2, warmup=2, autocast=False)
    fit("part", model, loss_of, settings, folder, progress=False)
    torch.save(model.state_dict(), folder / f"weights{rank}.pt")
    if world > 1:
        torch.distributed.destroy_process_group()  # a process that ends inside of one may be aborted by gloo's threads
    return model.state_dict()


def test_two_processes_make_what_one_makes(tmp_path: Path, root: Path):
    call = f"here.train_share(int(sys.argv[2]), 2, Path({str(tmp_path / 'two')!r}))"
    running = [
        subprocess.Popen([sys.executable, "-c", SCRIPT + call, __file__, str(rank)], env=environment(root))
        for rank in range(2)
    ]
    alone = train_share(0, 1, tmp_path / "one")
    assert [process.wait(timeout=180) for process in running] == [0, 0]
    for rank in range(2):
        together = torch.load(tmp_path / "two" / f"weights{rank}.pt")
        for key in alone:
            torch.testing.assert_close(together[key], alone[key], rtol=1e-5, atol=1e-6)


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 3)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    with pytest.raises(ConfigError, match="3 processes cannot share a batch of 4"):
        train(tmp_path)
