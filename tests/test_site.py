"""The site: every page has its place, it builds without a warning, and what leads nowhere is found."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path, PurePosixPath
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent


def load(script: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(script, ROOT / "docs" / f"{script}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_page_has_its_place() -> None:
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    nav = load("site_pages").on_config(settings)["nav"]
    placed = [page for part in nav for pages in part.values() for page in pages]
    there = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert sorted(placed) == sorted({"index.md", *there})
    assert [next(iter(part)) for part in settings["nav"]] == ["Start", "Use", "Methods", "Results", "Extend"]


def test_links_out_of_docs_become_paths() -> None:
    pages = load("site_pages")
    said = "see [the table](../benchmarks/a.md), [`examples/b.py`](../examples/b.py), [here](c.md#d) and ![p](../p.png)"
    made = pages.inside(said, PurePosixPath("."))
    assert made == "see the table (`benchmarks/a.md`), `examples/b.py`, [here](c.md#d) and ![p](../p.png)"
    assert pages.inside("[up](../how.md)", PurePosixPath("results")) == "[up](../how.md)"
    first = pages.first_page()
    assert "](docs/" not in first and "](how_it_works.md)" in first and "](../examples)" in first


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    checker = load("check_links")
    (tmp_path / "b.html").write_text("<p id='there'>", encoding="utf-8")
    whole = "<a href='b.html#there'></a><a href='https://x.example/y'></a><img src='b.html'>"
    (tmp_path / "a.html").write_text(whole, encoding="utf-8")
    assert checker.broken_links(tmp_path) == []
    (tmp_path / "a.html").write_text("<a href='b.html#gone'></a><img src='c.png'>", encoding="utf-8")
    assert checker.broken_links(tmp_path) == ["a.html: b.html#gone", "a.html: c.png"]


def test_it_builds_without_a_warning_and_every_link_leads_somewhere(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="mkdocs-material is not installed (extra 'docs')")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    assert load("check_links").broken_links(tmp_path / "site") == []
