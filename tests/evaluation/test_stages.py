"""Stages of a call: each timed apart, everything put back, and who ran elsewhere left out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from outpace.evaluation import build_results, run_study
from outpace.evaluation.report.page import page
from outpace.evaluation.report.tables import stage_table
from outpace.evaluation.stages import stages_of, watched


class Pipe:
    """Sleeps where a pipeline works."""

    def encode_prompt(self) -> str:
        time.sleep(0.02)
        return "text"

    def decode(self) -> str:
        time.sleep(0.03)
        return "picture"

    def __call__(self) -> str:
        self.encode_prompt()
        time.sleep(0.05)
        return self.decode()


def test_stages_add_up_to_the_whole_and_nothing_stays() -> None:
    pipe = Pipe()
    parts = {"text": (pipe, "encode_prompt"), "decoding": (pipe, "decode")}
    found = stages_of(pipe, parts)
    assert found is not None and list(found) == ["text", "decoding", "denoising", "whole"]
    assert found["text"] >= 0.02 and found["decoding"] >= 0.03 and found["denoising"] >= 0.05
    assert found["text"] + found["decoding"] + found["denoising"] == pytest.approx(found["whole"])
    assert vars(pipe) == {}


def test_what_was_set_on_the_object_is_put_back_after_an_error_too() -> None:
    pipe: Any = Pipe()
    pipe.decode = own = lambda: "own"
    with pytest.raises(RuntimeError), watched({"decoding": (pipe, "decode")}):
        assert pipe.decode() == "own"
        raise RuntimeError
    assert pipe.decode is own


def test_a_run_elsewhere_has_no_stages() -> None:
    assert stages_of(lambda: None, {"text": (Pipe(), "encode_prompt")}) is None


def test_a_study_keeps_them_and_the_report_shows_them(tmp_path: Path, make_study: Any) -> None:
    pipe = Pipe()
    study = make_study(tmp_path, requests=3, timing_requests=1, parts={"decoding": (pipe, "decode")})
    for contender in study.contenders:
        own = contender.generate
        object.__setattr__(contender, "timed", lambda requests, own=own: (pipe.decode(), own(requests)))
    described = {"name": "toy", "class": "Toy", "kind": "image", "scheduler": "Euler", "steps": 50}
    rows = run_study(study, progress=False)
    results = build_results(study, rows, pipeline=described, command="outpace", environment={"device": ""})
    table = stage_table(results)
    assert table["heads"] == ["denoising", "decoding", "end to end"] and len(table["rows"]) > 2
    assert table["rows"][0]["label"] and table["rows"][0]["denoising"] == table["rows"][0]["whole"] == 1.0
    assert "Where the time goes" in page(results, tmp_path)
    kept = {row.contender.name: row.stages for row in run_study(study, progress=False)}
    assert kept == {row.contender.name: row.stages for row in rows}
    for contender in results["contenders"]:
        contender["stages"] = None
    assert stage_table(results)["rows"] == [] and "Where the time goes" not in page(results, tmp_path)
