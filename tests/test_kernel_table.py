"""Which kernels both sides use, read off the imports: the page is true, and there is one package of kernels."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def kernel_table(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("kernel_table", root / "docs" / "kernel_table.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_sources_import(kernel_table: ModuleType, root: Path) -> None:
    page = (root / "docs" / "kernels.md").read_text(encoding="utf-8")
    assert page == kernel_table.page(), "run `make readme`"


def test_both_sides_use_at_least_five_kernels(kernel_table: ModuleType) -> None:
    found = kernel_table.shared(kernel_table.uses())
    # The parts of one operation count once.
    operations = {home.partition(".")[0] if home.startswith(("moe.", "quantised.")) else home for home in found}
    assert len(operations) >= 5, operations


def test_imports_are_read_whatever_their_form(kernel_table: ModuleType, tmp_path: Path) -> None:
    for place, source in {
        "accel/one.py": "from ..kernels.feed_forward import glu, ACTIVATIONS\n",
        "pipelines/two/deep.py": "def f():\n    from ...kernels.attention.windows import window_attention, Pair\n",
        "models/three.py": "from outpace.kernels.feed_forward.glu import glu\nimport torch\n",
        "models/checks/three.py": "from ...kernels.packing import Packing\n",
    }.items():
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(source)
    found = kernel_table.uses(tmp_path)
    assert {home: dict(sides) for home, sides in found.items()} == {
        "feed_forward.glu": {"diffusion": {("accel.one", "glu")}, "companions": {("models.three", "glu")}},
        "attention.windows": {"diffusion": {("pipelines.two.deep", "window_attention")}},
    }
    assert kernel_table.shared(found) == ["feed_forward.glu"]
