"""docs/screenshots.py: four pictures of a report, or one sentence that says what is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "docs" / "screenshots.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        timeout=600,
    )


def test_without_a_browser_it_says_what_to_install(tmp_path) -> None:
    done = run(tmp_path, PATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("Error: no browser to take pictures with; install Chromium")
    assert done.stderr.count("\n") == 1 and list(tmp_path.iterdir()) == []


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no Chromium on this machine")
def test_pictures_are_wide_and_narrow_light_and_dark(tmp_path) -> None:
    missing = run(tmp_path, tmp_path / "img")
    assert missing.returncode == 1 and "report.html does not exist" in missing.stderr
    style = ":root{color-scheme:light dark} @media (max-width:400px){p{display:none}}"
    (tmp_path / "report.html").write_text(f"<style>{style}</style><p>wide", encoding="utf-8")
    done = run(tmp_path, tmp_path / "img")
    assert done.returncode == 0, done.stderr
    corner, blank = {}, {}
    for path in (tmp_path / "img").iterdir():
        picture = Image.open(path).convert("L")
        corner[path.stem], blank[path.stem] = picture.getpixel((0, 0)), len(set(picture.getextrema())) == 1
    assert corner["report_1400"] == corner["report_500"] == corner["report_390"] == 255
    assert corner["report_1400_dark"] < 60
    assert blank == {"report_1400": False, "report_500": False, "report_390": True, "report_1400_dark": False}
