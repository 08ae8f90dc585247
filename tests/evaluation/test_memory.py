"""Peak memory of a call: known amounts, nothing kept, and a reason where it cannot be told."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from forked import Forked

from outpace.evaluation import memory
from outpace.evaluation.memory import Memory, peak_memory, ratio_to_plain

MB = 2**20
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux resets the high-water mark")


def taking(megabytes: int):
    return lambda: np.ones(megabytes * MB // 8).sum()


@linux
def test_a_known_amount_is_found_whatever_was_taken_before() -> None:
    taking(200)()  # a higher mark from before must not show
    for megabytes in (64, 16, 64):
        found = peak_memory(taking(megabytes)).as_dict()
        assert found["above"] == pytest.approx(megabytes * MB, abs=4 * MB)
        assert found["missing"] is None and found["peak"] == found["before"] + found["above"]


@linux
def test_memory_freed_before_the_call_is_not_reused_unseen(tmp_path: Path) -> None:
    # In a process of its own, whose heap nobody else uses meanwhile: blocks this small come from it, and stay with it.
    def small() -> None:
        kept = [b"x" * (60_000 + i) for i in range(500)]
        kept.append(bytes(100))

    with Forked(lambda: print([peak_memory(small).as_dict()["above"] for _ in range(3)]), tmp_path) as done:
        assert done.wait() == 0, done.err
        for above in json.loads(done.out):
            assert above == pytest.approx(30_000_000, rel=0.15)


def test_no_figure_comes_with_its_reason(monkeypatch, tmp_path) -> None:
    assert "not measured on mps" in str(peak_memory(taking(1), "mps").missing)
    monkeypatch.setattr(memory, "HIGH_WATER", tmp_path / "no" / "such")
    monkeypatch.setattr(memory.sys, "platform", "linux")
    refused = peak_memory(taking(1))
    assert refused.as_dict()["above"] is None and "No such file" in str(refused.missing)
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    assert "only Linux" in str(peak_memory(taking(1)).missing)


def test_the_ratio_is_of_what_calls_took_on_top() -> None:
    plain = Memory(peak=500 * MB, before=400 * MB).as_dict()
    assert ratio_to_plain(Memory(peak=550 * MB, before=400 * MB).as_dict(), plain) == 1.5
    assert ratio_to_plain(Memory(missing="no").as_dict(), plain) is None
    nothing = Memory(peak=400 * MB + 1000, before=400 * MB).as_dict()
    assert ratio_to_plain(plain, nothing) is None
