"""The page in a real browser: headings sort, the slider cuts, modes and prompts change. Skipped without Chromium."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape

import pytest

from outpace.evaluation import build_results, run_study
from outpace.evaluation.report import render

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

ACTIONS = """
const table = document.querySelector("#contenders table"), seen = {};
const heads = [...table.querySelectorAll("th")].filter((head) => head.querySelector("button"));
const column = (place) => [...table.tBodies[0].rows].map((row) => row.cells[place]?.childNodes[0].textContent.trim());
const labels = () => [...table.tBodies[0].rows].map((row) => row.cells[0].textContent.trim());
const sorted = (name) => heads.find((head) => head.textContent.trim() === name);
seen.buttons = [...document.querySelectorAll("table:not(.pictures)")].every((t) => t.querySelector("th button"));
sorted("steps").firstChild.click();
seen.up = column(1); seen.stable = labels(); seen.sort = sorted("steps").getAttribute("aria-sort");
sorted("steps").firstChild.click();
seen.down = column(1); seen.turned = sorted("steps").getAttribute("aria-sort");
sorted("contender").firstChild.click();
seen.names = labels(); seen.others = sorted("steps").getAttribute("aria-sort");
const cut = document.getElementById("viewer-cut"), stage = document.getElementById("viewer-stage");
const made = document.getElementById("viewer-made"), other = made.parentNode;
cut.value = 20; cut.dispatchEvent(new Event("input"));
seen.clip = getComputedStyle(other).clipPath;
seen.first = made.className;
const prompt = document.getElementById("viewer-prompt");
prompt.value = 1; prompt.dispatchEvent(new Event("change", { bubbles: true }));
seen.second = made.className;
seen.shown = getComputedStyle(made).backgroundImage.slice(0, 20);
document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "f", bubbles: true }));
seen.mode = stage.dataset.mode;
const before = getComputedStyle(other).visibility;
document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "f", bubbles: true }));
seen.swapped = [before, getComputedStyle(other).visibility];
document.querySelector("[name=viewer-mode][value=difference]").click();
const visible = [...stage.children].map((figure) => getComputedStyle(figure).display !== "none");
seen.difference = visible;
seen.overflow = document.documentElement.scrollWidth - innerWidth;
seen.copy = document.querySelector("pre.command + button").textContent;
document.title = JSON.stringify(seen);
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory, make_study):
    """The report of a toy study."""
    folder = tmp_path_factory.mktemp("study")
    study = make_study(folder, requests=4, timing_requests=1)
    pipeline = {"name": "toy", "class": "Toy", "kind": "image", "scheduler": "Euler", "steps": 50}
    rows = run_study(study, progress=False)
    return render(build_results(study, rows, pipeline=pipeline, command="outpace", environment={"device": ""}), folder)


@pytest.fixture(scope="module")
def seen(page, tmp_path_factory):
    """What was there after the ACTIONS on the page, 500 pixels wide."""
    acted = page.with_name("acted.html")
    text = page.read_text(encoding="utf-8")
    acted.write_text(text.replace("</body>", f"<script>{{{ACTIONS}}}</script></body>"), encoding="utf-8")
    command = [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=500,900", "--dump-dom"]
    profile = f"--user-data-dir={tmp_path_factory.mktemp('profile')}"
    done = subprocess.run([*command, profile, acted.as_uri()], capture_output=True, text=True, timeout=300, check=True)
    return json.loads(unescape(re.findall(r"<title>(.*?)</title>", done.stdout, flags=re.DOTALL)[0]))


def test_headings_sort_numbers_as_numbers_and_turn_round(seen) -> None:
    steps = [int(value) for value in seen["up"][:-1]]
    assert steps == sorted(steps) and list(dict.fromkeys(steps)) == [12, 17, 20, 25, 33, 50, 150]
    assert [int(value) for value in seen["down"][:-1]] == sorted(steps, reverse=True)
    assert (seen["sort"], seen["turned"], seen["others"]) == ("ascending", "descending", "none")
    assert seen["buttons"]


def test_what_did_not_run_stays_last_and_equal_rows_keep_their_order(seen) -> None:
    assert seen["stable"][-1].startswith("broken peer")
    fifty = [name for name, steps in zip(seen["stable"], seen["up"], strict=True) if steps == "50"]
    assert fifty[:4] == ["plain", "gated 0.02", "gated 0.05", "gated 0.1"]
    assert seen["names"].index("steps 12") < seen["names"].index("steps 33")


def test_the_viewer_slides_flickers_and_shows_differences(seen) -> None:
    assert seen["clip"] == "inset(0px 0px 0px 20%)"
    assert seen["first"] != seen["second"] and seen["shown"].startswith('url("data:image/')
    assert seen["mode"] == "flicker" and sorted(seen["swapped"]) == ["hidden", "visible"]
    assert seen["difference"] == [False, False, True]


def test_a_narrow_page_does_not_scroll_sideways(seen) -> None:
    assert seen["overflow"] <= 0 and seen["copy"] == "Copy"


MEASURE = """
const boxes = [...document.querySelectorAll(".opening svg")].filter((s) => s.getBoundingClientRect().width)
  .map((s) => [...s.querySelectorAll("text.label, text.tick")].map((t) => t.getBoundingClientRect()))[0];
const touch = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 3 && b.top < a.bottom - 3;
const drawn = [...document.querySelectorAll(".opening svg")].map((s) => s.getBoundingClientRect());
const plot = drawn.find((box) => box.width);
document.title = JSON.stringify({
  bottom: plot.bottom, height: innerHeight, wide: document.documentElement.scrollWidth - innerWidth,
  overlaps: boxes.flatMap((a, i) => boxes.slice(i + 1).filter((b) => touch(a, b))).length,
  tiles: document.querySelectorAll(".tile").length, pictures: document.querySelectorAll(".pair .pic").length,
});
"""


@pytest.mark.parametrize("size", ["1400,900", "500,900"])
def test_the_first_screen_holds_sentence_tiles_pictures_and_plot(page, tmp_path, size: str) -> None:
    acted = tmp_path / "first.html"
    text = page.read_text(encoding="utf-8")
    acted.write_text(text.replace("</body>", f"<script>{{{MEASURE}}}</script></body>"), encoding="utf-8")
    command = [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", f"--window-size={size}", "--dump-dom"]
    done = subprocess.run(
        [*command, f"--user-data-dir={tmp_path / 'profile'}", acted.as_uri()],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    found = json.loads(unescape(re.findall(r"<title>(.*?)</title>", done.stdout, flags=re.DOTALL)[0]))
    assert found["bottom"] <= found["height"] + 8 and found["wide"] <= 0, found
    assert found["overlaps"] == 0 and found["tiles"] == 3 and found["pictures"] == 2, found
