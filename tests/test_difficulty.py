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
                contender("gated-paper-0.1", "gated, paper", "gated", 2.06, 31.0),
                contender("gated-paper-0.2", "gated, paper", "gated", 2.45, 36.3),
                contender("taylorseer-3", "TaylorSeer", "peer", 1.1, 22.0),
                contender("taylorseer-lite-5", "TaylorSeer lite", "peer", 3.15, 15.7),
            )
        ]
    )
    lines = page.splitlines()
    assert "| gated, paper | 2.06x | 29.4 | 31.0 | +1.6 |" in lines
    assert "| gated, paper | 2.45x | 26.3 | 36.3 | +10.0 |" in lines
    assert "| gated, paper | 2.92x | 24.2 | not reached | |" in lines
    assert "| TaylorSeer, every 3rd | 2.33x | 20.7 | 22.0 | +1.3 |" in lines, "at its interval, whatever blocks say"
    assert "| TaylorSeer, every 5th | 3.15x | 15.7 | not reached | |" in lines
    assert sum("not reached" in line for line in lines) == len(difficulty.PUBLISHED) - 3
    assert "2 of 3 are within 5 dB; the mean is +4.3 dB." in page
    assert "25 of its 50 steps lie at 24.0 dB, worst picture 20.0." in page
    assert "Our dial, at 2.0 to 4.0 times, from 33.0 to 23.0 dB." in page


def test_without_results_it_says_so(difficulty: Any) -> None:
    assert difficulty.table([]) == "It has not been measured yet."
