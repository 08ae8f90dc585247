"""The table of supported transformers is of the families as they are, and of every one of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from outpace.accel import FAMILIES


@pytest.fixture(scope="module")
def support(root: Path) -> Any:
    sys.path.insert(0, str(root / "docs"))
    try:
        import support
    finally:
        sys.path.pop(0)
    return support


@pytest.fixture(scope="module")
def record(support: Any) -> Any:
    return json.loads(support.RECORD.read_text(encoding="utf-8"))


def test_every_class_was_tried_with_the_data_that_its_family_has_now(support: Any, record: Any) -> None:
    now = {name: support.stamp(family) for _, family in FAMILIES.items() for name in family.transformers}
    tried = {name: one["data"] for name, one in record["classes"].items()}
    assert tried == now, "make support"


def test_what_is_said_to_work_was_right(support: Any, record: Any) -> None:
    for name, one in record["classes"].items():
        assert False not in one["check"].values(), name
        for what in support.WORDS:  # a method that is taken works; else it is refused, with the reason
            assert not one[what].startswith(support.RAISED), (name, what)
    for one in (record["fixtures"] or {"tried": []})["tried"]:
        assert not one["wrong"], one["fixture"]


def test_one_class_tried_again_gives_what_is_written(support: Any, record: Any) -> None:
    again = json.loads(json.dumps(support.try_class("DiTTransformer2DModel")))
    assert again == record["classes"]["DiTTransformer2DModel"]


def test_a_changed_family_has_another_stamp(support: Any) -> None:
    from dataclasses import replace

    family = FAMILIES["flux"]
    stack = replace(family.stacks[0], shared=())
    assert support.stamp(replace(family, stacks=(stack, *family.stacks[1:]))) != support.stamp(family)
