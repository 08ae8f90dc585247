"""The table of docs/photo.md: published figures beside curves that are read between their points, and only there."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PAGES = Path(__file__).resolve().parent.parent / "docs"


@pytest.fixture(scope="module")
def difficulty() -> Any:
    sys.path.insert(0, str(PAGES))
    try:
        import difficulty as module  # pyright: ignore[reportMissingImports]
    finally:
        sys.path.pop(0)
    assert isinstance(module, ModuleType)
    return module


def contender(name: str, curve: str, kind: str, speedup: float, psnr: float) -> dict[str, Any]:
    metrics = {"plain": {"psnr": {"value": psnr, "worst": psnr - 4}}}
    return {
        "name": name, "curve": curve, "kind": kind, "error": None, "speedup": {"value": speedup}, "metrics": metrics
    }  # fmt: skip


def comparison(*contenders: dict[str, Any]) -> dict[str, Any]:
    return {
        "pipeline": {"name": "photo", "steps": 50, "precision": "bfloat16"},
        "study": {"plain": "plain", "samples": 8},
        "environment": {"device": "a processor"},
        "contenders": list(contenders),
    }


def test_curves_are_read_between_their_points_and_never_beyond(difficulty: Any) -> None:
    page = difficulty.table(
        [
            comparison(
                contender("scheduled-2", "ours", "scheduled", 2.0, 33.0),
                contender("scheduled-4", "ours", "scheduled", 4.0, 23.0),
                contender("steps-25", "fewer steps", "fewer-steps", 2.0, 24.0),
                contender("taylorseer-3", "TaylorSeer", "peer", 2.04, 22.0),
                contender("taylorseer-5", "TaylorSeer", "peer", 2.29, 26.0),
                contender("taylorseer-lite-3", "TaylorSeer lite", "peer", 2.83, 40.0),
            )
        ]
    )
    lines = page.splitlines()
    assert "| TaylorSeer | 2.04x | 20.6 | 22.0 | +1.4 |" in lines
    assert "| TaylorSeer | 2.29x | 20.2 | 26.0 | +5.8 |" in lines
    assert "| TaylorSeer | 2.83x | 17.4 | not reached | |" in lines
    assert sum("not reached" in line for line in lines) == 4 + 1 + 3
    assert "1 of 2 are within 5 dB; the mean is +3.6 dB." in page
    assert "25 of its 50 steps lie at 24.0 dB, worst picture 20.0." in page
    assert "Our dial, at 2.0 to 4.0 times, from 33.0 to 23.0 dB." in page


def test_without_results_it_says_so(difficulty: Any) -> None:
    assert difficulty.table([]) == "It has not been measured yet."
