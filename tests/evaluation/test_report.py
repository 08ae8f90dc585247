"""The page and the table: every section, nothing from outside, losses in sight."""

from __future__ import annotations

import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from outpace.errors import InputError
from outpace.evaluation import Result, build_results, run_study
from outpace.evaluation.atomic import write_json
from outpace.evaluation.report import load_results, render
from outpace.evaluation.report.contact import contact_sheet
from outpace.evaluation.report.curves import styles
from outpace.evaluation.report.first import first_screen
from outpace.evaluation.report.page import page as page_text
from outpace.evaluation.report.pictures import shown_requests
from outpace.evaluation.report.plot import nice_ticks, spread_labels
from outpace.evaluation.report.verdict import verdict

SECTIONS = (
    "summary",
    "plots",
    "pictures",
    "worst",
    "cells",
    "equal",
    "contenders",
    "paired",
    "timeline",
    "gaps",
    "environment",
    "command",
)
PIPELINE = {"name": "toy", "class": "Toy", "kind": "image", "scheduler": "Euler", "steps": 50}
COMMAND = "outpace compare toy --prompts 8 --out 'a <folder>'"


VOID = ("meta", "img", "br", "link", "input", "line", "circle", "polyline", "rect")


class Page(HTMLParser):
    """Collects what a browser would load, where sections are, every id, and the headings of every table."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.sections: list[str] = []
        self.ids: list[str] = []
        self.scopes: list[str | None] = []
        self.words = ""
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.loads += [given[name] or "" for name in ("src", "srcset", "poster", "data") if name in given]
        if tag == "link" or (tag == "a" and not (given.get("href") or "").startswith("#")):
            self.loads.append(str(given.get("href")))
        if tag == "section":
            self.sections.append(str(given["id"]))
        if "id" in given:
            self.ids.append(str(given["id"]))
        if tag == "th":
            self.scopes.append(given.get("scope"))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.fixture(scope="module")
def results(tmp_path_factory, make_study):
    folder = tmp_path_factory.mktemp("study")
    study = make_study(folder, requests=8, timing_requests=1)
    made = build_results(
        study,
        run_study(study, progress=False),
        pipeline=PIPELINE,
        command=COMMAND,
        environment={"device": "a desk", "outpace": "0"},
    )
    write_json(folder / "results.json", made)
    return made, folder


def test_the_page_is_whole_and_loads_nothing(results) -> None:
    made, folder = results
    text = render(made, folder).read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert tuple(page.sections) == SECTIONS
    assert page.loads == [] and text.count("background-image:url(data:image/") > 40
    assert not re.search(r"https?://|@import|fetch\(|XMLHttpRequest", text) and "default-src 'none'" in text
    assert len(page.ids) == len(set(page.ids)) > 20
    assert set(page.scopes) == {"col", "colgroup"} and text.count("<thead>") == text.count("<table")
    assert not re.search(r"url\((?!data:)", text)
    assert "outpace compare toy --prompts 8 --out &#39;a &lt;folder&gt;&#39;" in text
    assert "prefers-color-scheme: dark" in text and "viewport" in text


def test_losses_and_failures_are_in_sight(results) -> None:
    made, folder = results
    said = verdict(made)
    text = render(made, folder).read_text(encoding="utf-8")
    assert any("gated is behind interval, order 1" in loss for loss in said["losses"])
    assert "What was lost" in text
    assert "broken peer did not run: ValueError: no such cache" in text
    behind = [
        m for cells in made["cells"].values() for c in cells for m in c["margins"].values() if m["verdict"] == "behind"
    ]
    beaten = [c for c in made["contenders"] for rivals in c.get("beaten_by", {}).values() if rivals]
    assert behind and beaten
    equal = [*(e for entries in made["equal_time"].values() for e in entries)]
    equal += [e for found in made["equal_fidelity"].values() for clock in ("compute", "time") for e in found[clock]]
    slower = [e for e in equal if any(m["verdict"] == "behind" for m in e["margins"].values())]
    assert slower and any("x the blocks for" in loss for loss in said["losses"])
    assert text.count('<td class="behind"') == len(behind) + len(beaten) + len(slower)
    table = (folder / "report.md").read_text(encoding="utf-8")
    assert table.count(" ▼ |") == len(behind) + len(slower)


def test_equal_time_and_equal_pictures_stand_in_both_reports(results, tmp_path) -> None:
    made, folder = results
    page = render(made, folder).read_text(encoding="utf-8")
    table = (folder / "report.md").read_text(encoding="utf-8")
    for entry in made["equal_fidelity"]["plain"]["compute"]:
        if entry["speedup"]:
            assert f"{entry['speedup']['value']:.2f}x<small>" in page
            assert f"{entry['speedup']['value']:.2f}x ({entry['speedup']['low']:.2f} to " in table
    for entry in made["equal_time"]["plain"]:
        if entry["quality"]:
            assert f"{entry['quality']['value']:.1f}" in page and f"{entry['quality']['value']:.1f}" in table
    assert "1/2.5, " in page and "### Dominance against the plain pipeline" in table
    assert made["dominance"]["plain"]["fewer steps"]["gated"] > 0
    assert any(
        re.match(r"For the .* that fewer steps reach at .* as fast as fewer steps", sentence)
        for sentence in verdict(made)["sentences"]
    )
    old = {k: v for k, v in made.items() if k not in ("equal_time", "equal_fidelity", "dominance")}
    old["contenders"] = [{k: v for k, v in c.items() if k != "memory"} for c in made["contenders"]]
    assert 'id="equal"' not in render(old, tmp_path).read_text(encoding="utf-8")
    assert "Equal" not in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_memory_that_was_not_measured_is_named(results, tmp_path) -> None:
    made = copy.deepcopy(results[0])
    for entry in made["contenders"]:
        if entry.get("memory"):
            entry["memory"] = {"peak": None, "before": None, "missing": "no such counter", "above": None, "ratio": None}
    assert "Peak memory not measured: no such counter" in verdict(made)["gaps"]
    assert '<th rowspan="2">memory</th>' not in render(made, tmp_path).read_text(encoding="utf-8")


def test_what_is_surely_worse_than_plain_is_marked(results, tmp_path) -> None:
    made = copy.deepcopy(results[0])  # eight requests against twenty contenders can show nothing for sure
    tests = [c["beside_plain"]["converged"]["psnr"] for c in made["contenders"] if c.get("beside_plain")]
    for test in tests:
        test["p_adjusted"] = 0.01
    text = render(made, tmp_path).read_text(encoding="utf-8")
    table = (tmp_path / "report.md").read_text(encoding="utf-8")
    worse = sum(test["value"] < 0 for test in tests)
    assert 0 < worse < len(tests)
    assert text.count('<td class="worse"') == worse
    assert table.count(", p 0.01 worse |") == worse and table.count(", p 0.01 better |") == len(tests) - worse


def test_every_contender_is_tested_beside_plain_and_every_metric_left_out_is_named(results) -> None:
    made, folder = results
    text = render(made, folder).read_text(encoding="utf-8")
    table = (folder / "report.md").read_text(encoding="utf-8")
    shown = table.partition("## Beside the plain pipeline")[2]
    tested = [c for c in made["contenders"] if c.get("beside_plain")]
    assert all(f"| {c['label']} | " in shown for c in tested) and len(tested) == shown.count(", p ") / 3 > 10
    lpips = next(entry for entry in made["not_run"] if entry["metric"] == "lpips")
    assert f"LPIPS not run: {lpips['reason']}" in text and f"- LPIPS not run: {lpips['reason']}" in table
    assert re.search(r"\| interval 3 \|.* \d+\.\d \(\d+\.\d to \d+\.\d\) \|", table)  # means carry their interval


def test_the_verdict_names_value_range_and_rivals(results) -> None:
    first = verdict(results[0])["sentences"][0]
    assert re.match(r"At 2\.5x fewer computed blocks, gated lies at PSNR \d+\.\d \(\d+\.\d to \d+\.\d\) dB", first)
    assert "above fewer steps" in first and "below interval, order 1" in first


def test_the_measured_time_of_a_point_is_said_once(results) -> None:
    study, sentences = results[0]["study"], verdict(results[0])["sentences"]
    assert len(study["references"]) > 1 and sum(s.startswith("At ") for s in sentences) == len(study["references"])
    timed = [s for s in sentences if s.startswith("Measured at batch 1")]
    assert timed and len(timed) == len(set(timed))


def test_it_is_drawn_again_from_the_saved_files_alone(results) -> None:
    made, folder = results
    text = render(made, folder).read_text(encoding="utf-8")
    (folder / "report.html").unlink()
    assert render(load_results(folder), folder).read_text(encoding="utf-8") == text


def test_pictures_that_are_gone_leave_a_page(results, tmp_path) -> None:
    text = render(results[0], tmp_path).read_text(encoding="utf-8")
    assert "data:image" not in text and tuple(Page(text).sections) == SECTIONS


def test_clips_become_strips_that_play(tmp_path, make_study) -> None:
    from outpace.evaluation import Contender

    def clip(value: float):
        return lambda requests: [
            Result(media=np.full((9, 12, 16, 3), value, dtype=np.float32), latents=None, blocks=4.0) for _ in requests
        ]

    contenders = [
        Contender(name="plain", label="plain", kind="plain", steps=4, generate=clip(0.5)),
        Contender(name="converged", label="converged", kind="converged", steps=9, generate=clip(0.6)),
        Contender(name="gated-1", label="gated", kind="gated", steps=4, generate=clip(0.55)),
    ]
    study = make_study(tmp_path, contenders=contenders, requests=2)
    made = build_results(
        study,
        run_study(study, progress=False),
        pipeline={**PIPELINE, "kind": "video"},
        command="",
        environment={"device": ""},
    )
    strip = Image.open(tmp_path / "pictures" / "gated-1" / "0001.png")
    assert strip.size == (9 * 16, 12) and strip.info["frames"] == "9"
    text = render(made, tmp_path).read_text(encoding="utf-8")
    assert text.count('clip" style="--ratio:1.3333;--frames:9"') == 2 * 2  # two requests, two references
    assert text.count("hold all clips still") == 2
    assert "latent_l2" not in made["contenders"][2]["metrics"]["plain"]


def test_every_picture_is_in_the_page_once(results) -> None:
    text = render(*results).read_text(encoding="utf-8")
    held = re.findall(r"\.([pf]\d+)\{background-image:url\((.*)\)\}", text)
    shown = re.findall(r'class="pic ([pf]\d+)', text) + re.findall(r'data-difference="(p\d+)"', text)
    assert {name for name, _ in held} == set(shown) and len(shown) > len(held)
    assert text.count("data:image/") == len(held)


def test_hostile_prompts_are_shown_as_they_are(results) -> None:
    made, folder = copy.deepcopy(results[0]), results[1]
    hostile = "\"><script>alert(1)</script><img src=x onerror=alert(1)>'{{ 7 * 7 }}"
    for request in made["requests"]:
        request["prompt"] = hostile
    made["contenders"][2]["label"] = hostile
    page = Page(text := page_text(made, folder))
    assert page.open == [] and page.loads == [] and text.count("<script>") == 1
    assert hostile in page.words


def test_requests_are_the_worst_the_middle_and_the_best(results) -> None:
    made = copy.deepcopy(results[0])
    chosen = [c for c in made["contenders"] if c["name"] == "gated-0.1"]
    for c in chosen:
        for sample in c["samples"]:
            sample["metrics"]["plain"]["psnr"] = 10.0 * ((sample["index"] + 3) % 8)
    shown = [(words, request["index"]) for words, request in shown_requests(made, chosen)]
    assert shown[:3] == [("among the worst", 5), ("in the middle", 0), ("among the best", 4)]
    assert sorted(index for _, index in shown) == list(range(8))


def test_a_page_of_many_large_pictures_stays_small(results, tmp_path) -> None:
    """64 prompts, 100 contenders, pictures of noise: nothing compresses worse."""
    made = copy.deepcopy(results[0])
    runner = next(c for c in made["contenders"] if c["name"] == "gated-0.1")
    sample = runner["samples"][0]
    made["requests"] = [{"index": i, "prompt": f"prompt {i}", "seed": i} for i in range(64)]
    made["study"]["samples"] = 64
    made["contenders"] += [
        runner
        | {"name": f"gated-{n}", "label": f"gated {n}", "curve": runner["curve"] if n % 5 else f"curve {n}"}
        | {"samples": [sample | {"index": i} for i in range(64)], "timeline": runner["timeline"] * 2}
        for n in range(100)
    ]
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (256, 256, 3), dtype=np.uint8))
    for c in made["contenders"]:
        (tmp_path / "pictures" / c["name"]).mkdir(parents=True)
        for i in range(64):
            place = tmp_path / "pictures" / c["name"] / f"{i:04d}.png"
            if i:
                place.hardlink_to(place.with_name("0000.png"))
            else:
                noise.save(place, compress_level=0)
    path = render(made, tmp_path)
    assert path.stat().st_size < 3_000_000
    assert path.read_text(encoding="utf-8").count("<tr><td>prompt") >= 3


def test_results_of_another_schema_are_refused(results, tmp_path) -> None:
    with pytest.raises(InputError, match="schema 7"):
        render({**results[0], "schema": 7}, tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        load_results(tmp_path)
    (tmp_path / "results.json").write_text("[", encoding="utf-8")
    with pytest.raises(InputError, match="not JSON"):
        load_results(tmp_path)


def test_results_hold_no_infinity_and_the_schema_is_one(results) -> None:
    assert results[0]["schema"] == 1
    json.dumps(results[0], allow_nan=False)


def test_labels_keep_apart_and_in_order() -> None:
    placed = spread_labels([50.0, 52.0, 51.0, 200.0], 0.0, 210.0)
    assert sorted(range(4), key=lambda i: placed[i]) == [0, 2, 1, 3]
    gaps = np.diff(sorted(placed))
    assert gaps.min() >= 15.99 and max(placed) <= 210


def test_ticks_are_round_and_inside() -> None:
    assert nice_ticks(31.2, 68.9) == [40.0, 50.0, 60.0]
    assert all(30.2 <= t <= 31.1 for t in nice_ticks(30.2, 31.1))


def test_the_first_screen_is_of_our_curve_where_the_study_looks(results) -> None:
    made, folder = results
    first = first_screen(made)
    assert first is not None and first["curve"] == "gated"
    found = next(c for c in made["contenders"] if c["name"] == first["name"])
    others = [c for c in made["contenders"] if c["curve"] == "gated" and bool(c["time"]) == bool(found["time"])]
    assert min(others, key=lambda c: abs(c["speedup"]["value"] - 2.5)) is found
    worst = min(sample["metrics"]["plain"]["psnr"] for sample in found["samples"])
    assert first["sentence"].endswith(f"its worst picture lies at {worst:.1f} dB")
    names = [tile["name"] for tile in first["tiles"]]
    assert names == ["time", "worst picture", "prompt followed"] and first["tiles"][1]["value"] == f"{worst:.1f} dB"
    lowest = next(s["index"] for s in found["samples"] if s["metrics"]["plain"]["psnr"] == worst)
    assert first["index"] == lowest
    text = page_text(made, folder)
    assert text.index(first["sentence"]) < text.index('class="tiles"') < text.index('class="pair"') < text.index("<svg")
    assert text.index("<svg") < text.index("In words") < text.index("Did not run, or has no result")


def test_without_anything_of_ours_there_is_no_hero(results) -> None:
    made = copy.deepcopy(results[0])
    for c in made["contenders"]:
        if made["kinds"][c["kind"]]["ours"]:
            c["error"] = "gone"
    assert first_screen(made) is None and contact_sheet(made, results[1]) is None
    assert "speed against fidelity</h1>" in page_text(made, results[1])


def test_what_was_not_measured_is_said_on_the_tiles(results) -> None:
    made = copy.deepcopy(results[0])
    for c in made["contenders"]:
        c.update(time=None, checks={})
    first = first_screen(made)
    assert first is not None
    assert [tile["value"] for tile in first["tiles"]][::2] == ["not measured", "not checked"]


def test_a_contact_sheet_lies_beside_the_report(results) -> None:
    made, folder = results
    render(made, folder)
    with Image.open(folder / "contact.png") as sheet:
        assert sheet.width >= 700 and sheet.height > 400
        assert len(sheet.convert("RGB").quantize(64).getcolors()) > 8
    assert contact_sheet(made, folder / "no pictures") is None


def test_every_kind_has_a_colour_in_light_in_dark_and_on_paper() -> None:
    from outpace.evaluation import report
    from outpace.evaluation.contender import KINDS

    style = (Path(report.__file__).parent / "templates" / "report.css").read_text(encoding="utf-8")
    for kind in KINDS:
        name = "peer-0" if kind == "peer" else kind.replace("+", "-")
        assert style.count(f"--{name}: #") == 3, kind


def test_the_headline_speaks_of_the_dial_where_it_took_part(results) -> None:
    from outpace.evaluation.report.verdict import headline_cell

    told = copy.deepcopy(results[0])
    assert headline_cell(told, "plain")["kind"] == "gated"
    for cell in told["cells"]["plain"]:
        cell["kind"] = {"fewer-steps": "scheduled"}.get(cell["kind"], cell["kind"])
    assert headline_cell(told, "plain")["kind"] == "scheduled"


def test_six_curves_have_a_colour_and_the_others_are_grey(results) -> None:
    made = copy.deepcopy(results[0])
    base = next(c for c in made["contenders"] if c["kind"] == "fewer-steps")
    for number in range(9):
        made["contenders"].append(base | {"name": f"peer-{number}", "curve": f"peer {number}", "kind": "peer"})
        best = {"curve": f"peer {number}", "kind": "peer", "speedup": 2.5, "margins": {}, "worst": None}
        made["cells"]["plain"].append(best | {"quality": {"value": 1.0 * number, "low": None, "high": None}})
    found = styles(made)
    coloured = [curve for curve, style in found.items() if not style.rest and curve not in ("plain", "converged")]
    assert len(coloured) == 6 and "gated" in coloured and "peer 8" in coloured and "peer 0" not in coloured
    assert len({found[curve].colour for curve in coloured}) == 6
    assert {style.colour for style in found.values() if style.rest} == {"var(--rest)"}
    few = styles(results[0])
    assert sum(not style.rest for style in few.values()) >= 6


def test_losses_are_grouped_a_curve(results) -> None:
    made = results[0]
    said = verdict(made)["in_short"]
    behind = {
        (reference, cell["curve"])
        for reference, cells in made["cells"].items()
        for cell in cells
        if any(margin["verdict"] == "behind" for margin in cell["margins"].values())
    }
    assert behind and len(said) == len(behind)
    assert re.match(
        r"Against the plain pipeline, .+ is behind \d+ of \d+ rivals somewhere; most behind .+ dB at", said[0]
    )
    reasons = [{"label": name, "reason": "not installed: x", "applies": True} for name in ("A", "B")]
    assert "A, B not run: not installed: x" in verdict(made | {"not_run": reasons})["gaps"]
