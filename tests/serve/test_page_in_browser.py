"""The page at / in a real browser, wide and narrow: it asks twice and shows both, with what was computed of each."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest
from PIL import Image

from outpace.serve import app
from outpace.serve.app import ServeSettings

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

ACT = """
at("quality").value = "low";
SPEEDUP
at("steps").value = 6;
at("seed").value = 200;
at("prompt").value = PROMPT;
at("make").click();
"""
TELL = """
setTimeout(() => {
  const bars = (place) => [...document.querySelectorAll(`#${place} .steps span`)].map((bar) => bar.className);
  const told = {
    qualities: [...at("quality").options].map((option) => option.value),
    captions: [...document.querySelectorAll("figcaption")].map((caption) => caption.textContent),
    pictures: [...document.images].map((image) => image.naturalWidth),
    bars: [bars("plain"), bars("ours")],
    said: at("said").textContent,
    overflow: document.documentElement.scrollWidth - innerWidth,
    heading: document.querySelector("#pipeline").textContent,
    usual: USUAL,
    key: at("key").offsetWidth > 0,
    again: at("make").disabled,
  };
  document.title = JSON.stringify(told);
}, 4000);
"""


@pytest.fixture
def look(toy, serve, tmp_path, monkeypatch):
    """`look(width, prompt)`: what the page holds after somebody asked for a picture; photographed into tmp_path."""
    page = app.PAGE.read_text(encoding="utf-8")

    def seen(width: int, prompt: str, *, speedup: str = "", photographed: bool = False) -> dict:
        acted = tmp_path / f"{width}.html"
        typed = f'at("speedup").value = "{speedup}"; at("speedup").dispatchEvent(new Event("input"));'
        act = ACT.replace("PROMPT", json.dumps(prompt)).replace("SPEEDUP", typed)
        script = f'const USUAL = at("quality").value;{act}{TELL}'
        acted.write_text(page.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
        monkeypatch.setattr(app, "PAGE", acted)
        with serve(toy, ServeSettings()) as url:
            dom = browse(url, width, tmp_path, "--dump-dom")
            if photographed:
                browse(url, width, tmp_path, f"--screenshot={tmp_path / 'page.png'}")
        return json.loads(unescape(re.findall(r"<title>(.*?)</title>", dom, flags=re.DOTALL)[0]))

    return seen


def browse(url: str, width: int, folder: Path, *what: str) -> str:
    command = [
        str(CHROMIUM),
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--virtual-time-budget=8000",
        f"--window-size={width},900",
        f"--user-data-dir={folder}/profile",
    ]
    return subprocess.run([*command, *what, url], capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.parametrize("width", [1400, 390])
def test_plain_beside_ours_with_the_steps_that_were_computed(look, toy, tmp_path, width: int) -> None:
    told = look(width, "a line", photographed=True)
    assert told["said"] == "" and told["heading"] == "toy" and told["usual"] == "medium"
    assert told["qualities"] == ["exact", "high", "medium", "low"]
    assert [caption.partition(":")[0] for caption in told["captions"]] == ["exact", "low"]
    assert all("50 % of the blocks computed, 0.10 s" in caption for caption in told["captions"])
    assert told["pictures"] == [24, 24]
    assert told["bars"] == [["computed", ""] * 3] * 2
    assert told["overflow"] <= 0 and not told["again"]
    assert [(o.tier, o.seed, o.steps) for o in toy.orders][:2] == [("exact", 200, 6), ("low", 200, 6)]
    assert not told["key"], "no key is asked for where none is wanted"
    picture = Image.open(tmp_path / "page.png").convert("RGB")
    assert picture.size == (width, 900)
    assert (200, 200, 200) in {colour for _, colour in picture.getcolors(10**7)}, "the pictures are seen"


def test_a_number_takes_the_place_of_the_quality(look, toy) -> None:
    told = look(390, "a line", speedup="2.5")
    assert [caption.partition(":")[0] for caption in told["captions"]] == ["exact", "speed-up 2.5"]
    assert [(o.tier, o.speedup) for o in toy.orders][:2] == [("exact", None), ("speedup", 2.5)]
    assert told["overflow"] <= 0


def test_an_error_is_said_on_the_page(look) -> None:
    told = look(390, "refuse")
    assert told["said"] == "no such word" and not told["again"] and told["overflow"] <= 0
