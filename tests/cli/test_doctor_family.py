"""`outpace doctor --family`: a class held to its family's data from the shell."""

from __future__ import annotations

import json

from click.testing import CliRunner

from outpace.cli.doctor import doctor


def test_a_covered_class_is_tried() -> None:
    result = CliRunner().invoke(doctor, ["--family", "LTX2VideoTransformer3DModel"])
    assert result.exit_code == 0, result.output
    assert [line[:2] for line in result.output.splitlines()] == ["ok"] * 8


def test_what_was_tried_is_json_for_machines() -> None:
    result = CliRunner().invoke(doctor, ["--family", "ErnieImageTransformer2DModel", "--json"])
    passed = [found["passed"] for found in json.loads(result.output)]
    assert passed == [True] * 6 + [None, True]  # nothing in it is constant within a run, so reuse is no question


def test_a_class_without_a_tiny_model_is_refused_with_the_way_out() -> None:
    result = CliRunner().invoke(doctor, ["--family", "Stranger"])
    assert result.exit_code != 0
    assert "check_family" in str(result.exception)
