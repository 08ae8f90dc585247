"""What docs/ladine.md claims: from the committed results, and, marked slow, from a training of everything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from outpace.evaluation.calibration import CLEAN, summary
from outpace.evaluation.report.calibration import calibration_markdown
from outpace.pipelines.ladine.corruptions import CORRUPTIONS
from outpace.pipelines.ladine.suite import ATTACKS

ROOT = Path(__file__).resolve().parents[2]
RIVALS = {"vit", "temperature", "ensemble", "card", "mapping", "member"}


def holds(results: dict[str, Any]) -> None:
    rows = {row["way"]: row for row in summary(results)}
    assert RIVALS <= set(rows)
    assert rows["ladine"]["corrupted"]["ece"] < rows["vit"]["corrupted"]["ece"]
    assert rows["ladine"]["clean"]["accuracy"] > rows["vit"]["clean"]["accuracy"] - 0.02
    assert rows["ladine"]["corrupted"]["accuracy"] > rows["vit"]["corrupted"]["accuracy"] - 0.01
    for few in ("ladine", "ladine-few"):
        for part in ("clean", "corrupted"):
            assert abs(rows[few][part]["accuracy"] - rows["ladine-all"][part]["accuracy"]) <= 0.01
    for one in results["figures"].values():
        assert one["auroc"] > 0.6 and one["members_disagree"] > 0


@pytest.fixture(scope="module")
def committed() -> dict[str, Any]:
    return json.loads((ROOT / "benchmarks" / "results" / "ladine.json").read_text(encoding="utf-8"))


def test_the_committed_results_hold(committed: dict[str, Any]) -> None:
    assert len(committed["seeds"]) == 3 and CLEAN in committed["corruptions"]
    holds(committed)


def test_the_page_is_written_from_the_results(committed: dict[str, Any]) -> None:
    assert (ROOT / "docs" / "results_ladine.md").read_text(encoding="utf-8") == calibration_markdown(committed)


def test_the_page_names_every_corruption_and_attack() -> None:
    page = (ROOT / "docs" / "ladine.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in (*CORRUPTIONS, *ATTACKS) if name != CLEAN)


@pytest.mark.slow
def test_a_training_of_everything_holds(tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/ladine.py", "--seeds", "1", "--work", str(tmp_path), "--out", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=3000)
    holds(json.loads((tmp_path / "ladine.json").read_text(encoding="utf-8")))
