"""What a study makes of its crew: any order, errors of some, leaders and others, folders that are not shared."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from forked import Forked, needs_fork

from outpace.errors import ConfigError, InputError, MeasurementError
from outpace.evaluation import Contender, Request, Result, run_study
from outpace.evaluation.atomic import write_json
from outpace.evaluation.samples import BatchMaker
from outpace.evaluation.workers import Alone, Do, Job, RayCrew, is_launched

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")


class Backwards(Alone):
    """Two workers that know nothing of each other, and end in the worst order."""

    size = 2

    def __init__(self, do: Do, other: Do) -> None:
        super().__init__(do)
        self.other = other

    def work(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Any]]:
        for place, job in reversed(list(enumerate(jobs))):
            yield job, (self.other if place % 2 else self.do)(job)


class Elsewhere(Alone):
    """Workers whose folder is another one."""

    def work(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Any]]:
        return ((job, None) for job in jobs)


class Follower(Alone):
    leads = False


def told(study: Any, crew: Any = None) -> list[tuple[str, Any, str | None]]:
    return [(row.contender.name, row.samples, row.error) for row in run_study(study, crew=crew, progress=False)]


def failing_from(contender: Contender, first: int) -> Contender:
    """`contender`, failing from request `first` on, each time with other words."""

    def generate(requests: list[Request]) -> list[Result]:
        if requests[0].index >= first:
            raise ValueError(f"no request {requests[0].index}")
        return contender.generate(requests)

    return dataclasses.replace(contender, name="late", generate=generate)


def test_any_order_and_any_number_of_workers_give_the_rows_of_one(tmp_path: Path, make_study) -> None:
    whole = make_study(tmp_path / "alone", requests=20)
    contenders = [*whole.contenders, failing_from(whole.contenders[-2], 5)]
    alone = told(dataclasses.replace(whole, contenders=contenders))
    study = dataclasses.replace(whole, contenders=contenders, folder=tmp_path / "crew")
    assert told(study, Backwards(BatchMaker(study), BatchMaker(study))) == alone
    errors = {name: error for name, _, error in alone if error}
    assert errors == {"peer-broken": "ValueError: no such cache", "late": "ValueError: no request 5"}


def test_only_what_is_missing_is_done(tmp_path: Path, make_study) -> None:
    whole = told(make_study(tmp_path))
    (tmp_path / "cells" / "interval-3" / "0005-0009.json").unlink()
    study, asked = make_study(tmp_path), []
    maker = BatchMaker(study)
    again = told(study, Alone(lambda job: (asked.append(job), maker(job))[1]))
    assert again == whole
    assert [job for job in asked if job[0] != "peer-broken"] == [("interval-3", 1)]


def test_work_that_did_not_reach_the_folder_is_an_error(tmp_path: Path, make_study) -> None:
    study = make_study(tmp_path)
    with pytest.raises(MeasurementError, match="all workers must see this folder"):
        run_study(study, crew=Elsewhere(BatchMaker(study)), progress=False)


def test_a_process_that_does_not_lead_takes_no_times_and_tells_nothing(tmp_path: Path, make_study) -> None:
    study = make_study(tmp_path, timing_requests=2)
    assert run_study(study, crew=Follower(BatchMaker(study)), progress=False) == []
    assert not list(tmp_path.rglob("timing.json"))


def test_a_launched_group_is_known_by_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert not is_launched()
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not is_launched()
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert is_launched()


@needs_fork
def test_processes_that_write_one_file_at_once_never_leave_a_part(tmp_path: Path) -> None:
    path = tmp_path / "cells" / "cell.json"
    path.parent.mkdir()

    def write(who: str) -> None:
        for turn in range(200):
            write_json(path, {"who": who, "filling": [turn] * 2000})

    seen = set()
    with Forked(partial(write, "one"), tmp_path / "one") as one, Forked(partial(write, "two"), tmp_path / "two") as two:
        while one.poll() is None or two.poll() is None:
            if path.exists():
                kept = json.loads(path.read_text(encoding="utf-8"))
                assert len(kept["filling"]) == 2000
                seen.add(kept["who"])
        assert (one.wait(), two.wait()) == (0, 0) and seen, one.err + two.err
    assert [p.name for p in path.parent.iterdir()] == ["cell.json"]


def deadly(folder: Path) -> Do:
    """What kills its worker at every "bomb", at the first "accident", and refuses a "slip"."""

    def do(job: str) -> str:
        if job == "slip":
            raise ConfigError("a slip")
        if job == "bomb" or (job == "accident" and not (folder / "happened").exists()):
            (folder / "happened").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return job.upper()

    return do


@pytest.fixture
def ray_crew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RayCrew:
    """One worker of a Ray that is not started yet."""
    # Workers know nothing of this file: what they are to do travels as a whole.
    importlib.import_module("ray.cloudpickle").register_pickle_by_value(sys.modules[__name__])
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return RayCrew(partial(deadly, tmp_path), 1)


@needs_ray
def test_a_worker_of_ray_that_dies_is_replaced(ray_crew: RayCrew) -> None:
    with closing(ray_crew) as crew:
        assert list(crew.work(["a", "accident", "b"])) == [("a", "A"), ("accident", "ACCIDENT"), ("b", "B")]
    assert not ray_crew.ray.is_initialized()


@needs_ray
@pytest.mark.slow
def test_what_kills_every_worker_of_ray_is_named(
    ray_crew: RayCrew, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(ray_crew) as crew:
        assert list(crew.work([])) == [] and not crew.ray.is_initialized()
        assert list(crew.work(["a", "accident", "b"])) == [("a", "A"), ("accident", "ACCIDENT"), ("b", "B")]
        with pytest.raises(ConfigError, match="a slip"):
            list(crew.work(["slip"]))
        with pytest.raises(MeasurementError, match="4 workers died over bomb"):
            list(crew.work(["bomb"]))
        with pytest.raises(ConfigError, match="--workers 1: each needs a GPU, and Ray has 0"):
            list(RayCrew(partial(deadly, tmp_path), 1, gpu=True).work(["a"]))
    assert not ray_crew.ray.is_initialized() and capsys.readouterr().out == ""


@needs_ray
def test_a_cluster_out_of_reach_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(InputError, match=r"nothing answers at RAY_ADDRESS=127.0.0.1:1 .*unset it"):
        list(RayCrew(partial(deadly, tmp_path), 1).work(["a"]))
