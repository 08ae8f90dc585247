"""What sparse attention did: boiled down, counted as work, put together, shown."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest

from outpace.accel.attention.record import AttentionRecord, Drift, Search
from outpace.evaluation import Contender, Request, Result, build_results, run_study
from outpace.evaluation.attention import block_work, digest, merge, seconds_of
from outpace.evaluation.report import render
from outpace.evaluation.report.attention import attention_section, behind
from outpace.evaluation.report.attention_drawings import heat_map, shade
from outpace.evaluation.report.verdict import verdict

LAYERS, HEADS, BLOCKS = 3, 2, 30.0


def record(
    seed: int = 0, *, drifted: bool = True, work: float = 0.5, share: float = 0.6, watched: bool = True
) -> dict[str, Any]:
    """A run of 10 steps with two guidance branches: searches at steps 1 and 5, one for drift at step 8; layer 2 stays
    dense."""
    rng = np.random.default_rng(seed)
    held = AttentionRecord(layers=[f"{n}.attn1" for n in range(LAYERS)], heads=HEADS, tokens=4352)
    held.share = share
    for step, cause in ((1, "schedule"), (5, "schedule"), *([(8, "drift")] if drifted else [])):
        for branch in ("cond", "uncond"):
            for place, layer in enumerate(held.layers):
                density = (0.1 + 0.2 * place + 0.05 * rng.random(HEADS)).tolist()
                held.searches.append(
                    Search(
                        run=0,
                        step=step,
                        branch=branch,
                        denoiser="transformer",
                        layer=layer,
                        row=0,
                        cause=cause,
                        density=density,
                        recall=[0.95, 0.97],
                        least_recall=[0.9, 0.91 + 0.01 * rng.random()],
                        error=None,
                        kept=place != 2,
                        bytes=1000 if place != 2 else 0,
                    )
                )
    for step in (2, 3, 4, 6, 7):
        for layer in held.layers[:2]:
            held.drifts.append(
                Drift(
                    run=0, step=step, branch="cond", layer=layer, row=0, drift=0.1 * step + rng.random(),
                    recall=0.94 - 0.01 * step if watched else None,
                )
            )  # fmt: skip
    held.calls.update(dense=30, mass=18, sparse=30)
    held.work = work * 60
    held.seconds.update(dense=9, mass=1, sparse=2)
    held.backends.update(sparse="torch")
    return held.as_dict()


def test_the_work_of_a_block_falls_by_what_its_attention_leaves_out() -> None:
    assert block_work(record(work=0.5, share=0.6)) == pytest.approx(1 - 0.6 * 0.5)
    assert block_work(digest(record(work=0.25, share=0.8))) == pytest.approx(0.4)
    assert block_work(record(work=1.1, share=0.5)) == pytest.approx(1.05)  # searches that found nothing cost something
    assert block_work(None) == 1.0 and block_work(AttentionRecord().as_dict()) == 1.0


def test_a_digest_holds_the_means_of_the_searches_and_is_small() -> None:
    attention = record()
    found = digest(attention, ["a note"])
    for place, layer in enumerate(found["layers"]):
        of_layer = [s for s in attention["searches"] if s["layer"] == layer]
        if place == 2:
            assert found["density"][place] == [1.0, 1.0] and found["recall"][place] is None
            assert found["dense"][place] == 1.0
            continue
        assert found["density"][place] == pytest.approx(np.mean([s["density"] for s in of_layer], axis=0), rel=1e-4)
        assert found["least"][place] == pytest.approx(np.min([s["least_recall"] for s in of_layer], axis=0), rel=1e-4)
        assert found["recall"][place] == pytest.approx([0.95, 0.97]) and found["dense"][place] == 0.0
    assert found["searches"] == [
        {"step": 1, "cause": "schedule", "count": 6, "kept": 4},
        {"step": 5, "cause": "schedule", "count": 6, "kept": 4},
        {"step": 8, "cause": "drift", "count": 6, "kept": 4},
    ]
    at_three = [d["drift"] for d in attention["drifts"] if d["step"] == 3]
    entry = next(e for e in found["drift"] if e["step"] == 3)
    assert (entry["mean"], entry["max"]) == (
        pytest.approx(np.mean(at_three), rel=1e-4),
        pytest.approx(max(at_three), rel=1e-4),
    )
    assert entry["recall"] == entry["recall_least"] == pytest.approx(0.91)
    assert digest(record(watched=False))["drift"][0]["recall"] is None
    assert len(json.dumps(found)) < 0.4 * len(json.dumps(attention))


def test_layers_of_two_denoisers_are_kept_apart() -> None:
    attention = record()
    second = [s | {"denoiser": "transformer_2", "density": [0.8, 0.9]} for s in attention["searches"]]
    found = digest(attention | {"searches": attention["searches"] + second})
    assert len(found["layers"]) == 2 * LAYERS and found["layers"][LAYERS] == "transformer_2.0.attn1"
    assert found["density"][LAYERS] == pytest.approx([0.8, 0.9]) and found["density"][0][0] < 0.2


def test_requests_put_together_are_the_mean_and_the_extremes() -> None:
    parts = [digest(record(seed, drifted=seed > 0)) for seed in range(3)]
    found = merge(parts)
    assert found is not None
    for place in range(2):
        assert found["density"][place] == pytest.approx(np.mean([p["density"][place] for p in parts], axis=0), rel=1e-4)
        assert found["least"][place] == pytest.approx(np.min([p["least"][place] for p in parts], axis=0), rel=1e-4)
    assert found["totals"]["calls"] == {"dense": 90, "mass": 54, "sparse": 90}
    assert found["totals"]["searches_for_drift"] == 12 and found["totals"]["index_bytes"] == 4 * 1000
    assert found["totals"]["least_recall"] == pytest.approx(0.9)
    assert found["searches"][2] == {"step": 8, "cause": "drift", "count": 12, "kept": 8}
    entries = [next(e for e in p["drift"] if e["step"] == 3) for p in parts]
    entry = next(e for e in found["drift"] if e["step"] == 3)
    assert entry["mean"] == pytest.approx(np.mean([e["mean"] for e in entries]), rel=1e-4)
    assert entry["max"] == max(e["max"] for e in entries) and entry["count"] == 6
    assert entry["recall"] == pytest.approx(0.91) and found["totals"]["least_recall_later"] == pytest.approx(0.87)
    assert merge([]) is None


def test_what_was_not_measured_takes_no_part_in_means() -> None:
    found = merge([digest(record(0, watched=False)), digest(record(1))])
    assert found is not None
    entry = next(e for e in found["drift"] if e["step"] == 3)
    assert entry["recall"] == pytest.approx(0.91) and entry["count"] == 4
    unwatched = merge([digest(record(0, watched=False))])
    assert unwatched is not None and unwatched["totals"]["recall_later"] is None


def test_seconds_take_dense_calls_as_long_as_the_clocked_ones() -> None:
    found = seconds_of({"dense": 4.0, "mass": 0.3, "sparse": 2.0}, {"dense": 10, "sparse": 30}, fresh=8)
    assert found == {"search": 0.3, "dense": 5.0, "sparse": 2.0, "replaced": 15.0}
    assert seconds_of({}, {"dense": 10}, fresh=8) == {} == seconds_of({"sparse": 1.0}, {"sparse": 3}, fresh=0)


def answer(value: float, work: float | None = None, skip: bool = False):
    def generate(requests: list[Request]) -> list[Result]:
        made = []
        for request in requests:
            media = np.full((12, 12, 3), value + 0.001 * request.index, dtype=np.float32)
            calls = [
                {"step": s, "branch": "cond", "sigma": 1 - s / 10, "timestep": None, "computed": not (skip and s % 2),
                 "reason": "gate" if skip else "no forecast", "error": None, "order": None}
                for s in range(10)
            ]  # fmt: skip
            trace = {"family": "toy", "blocks": 3, "calls": calls, "warnings": ["it's <dense> & short"]}
            blocks = BLOCKS / 2 if skip else BLOCKS
            if work is not None:
                trace["attention"] = record(request.index, work=work)
            made.append(Result(media=media, latents=None, blocks=blocks, trace=trace))
        return made

    return generate


@pytest.fixture(scope="module")
def study_with_attention(tmp_path_factory, make_study):
    """Plain, converged, sparse at two settings, and sparse with skipped steps: results and their folder."""
    folder = tmp_path_factory.mktemp("attention")
    contenders = [
        Contender(name="plain", label="plain", kind="plain", steps=10, generate=answer(0.5)),
        Contender(name="converged", label="converged", kind="converged", steps=40, generate=answer(0.52)),
        *(
            Contender(name=f"sparse-{v}", label=f"AdaSpa {v}", kind="sparse", steps=10, curve="AdaSpa", shown=True,
                      generate=answer(v, work))
            for v, work in ((0.51, 0.5), (0.53, 0.6))
        ),
        Contender(name="both", label="AdaSpa on gated", kind="gated+sparse", steps=10,
                  generate=answer(0.54, 0.5, skip=True)),
        Contender(name="fewer", label="8 steps", kind="fewer-steps", steps=8, generate=answer(0.47)),
    ]  # fmt: skip
    study = make_study(
        folder, contenders=contenders, requests=3, timing_requests=1, target=1.4, speedups=(1.25, 1.4, 2.0)
    )
    pipeline = {"name": "toy", "class": "Toy", "kind": "image", "scheduler": "Euler", "steps": 10}
    rows = run_study(study, progress=False)
    made = build_results(study, rows, pipeline=pipeline, command="", environment={"device": "a desk"})
    return made, folder, study


def test_sparse_attention_counts_as_less_work_though_every_block_runs(study_with_attention) -> None:
    made, _, _ = study_with_attention
    found = {c["name"]: c for c in made["contenders"]}
    assert found["sparse-0.51"]["blocks"] == found["plain"]["blocks"] == BLOCKS
    assert found["sparse-0.51"]["speedup"]["value"] == pytest.approx(1 / 0.7)
    assert found["both"]["speedup"]["value"] == pytest.approx(2 / 0.7)
    assert found["fewer"]["speedup"]["value"] == 1.0 and found["plain"]["attention"] is None
    assert made["study"]["compute"] == "work"
    json.dumps(made, allow_nan=False)


def test_what_is_kept_of_a_trace_is_its_digest_and_a_continued_study_is_the_same(study_with_attention) -> None:
    made, folder, study = study_with_attention
    for path in (folder / "cells" / "sparse-0.51").glob("0*.json"):
        for sample in json.loads(path.read_text())["data"]:
            assert "drifts" not in sample["trace"]["attention"]
    again = build_results(study, run_study(study, progress=False), pipeline={}, command="", environment={})
    assert again["contenders"] == made["contenders"]


def test_everyone_who_was_asked_for_is_timed_and_shown(study_with_attention) -> None:
    made, _, _ = study_with_attention
    timed = [c["name"] for c in made["contenders"] if c.get("time")]
    assert timed == ["sparse-0.51", "sparse-0.53", "both", "fewer"]  # "both" lies near the last compared speed-up
    assert [c["name"] for c in made["contenders"] if c["shown"]] == ["sparse-0.51", "sparse-0.53"]


def test_the_report_shows_layers_heads_drift_and_searches(study_with_attention) -> None:
    made, folder, _ = study_with_attention
    page = render(made, folder).read_text(encoding="utf-8")
    section = page[page.index('<section id="attention">') :].split("</section>")[0]
    assert section.count('<rect class="cell') == 3 * LAYERS * HEADS
    assert section.count("stays dense</title>") == 3 * HEADS
    assert re.search(r"<title>layer 0.attn1, head 1: \d+ % of the blocks kept, 97.0 % of the mass", section)
    assert "step 5: 90.0 % of the mass kept, 90.0 % in the layer with the least, of 6 calls" in section
    assert section.count('class="search drifted"') == 6 and section.count('<polyline class="drift curve"') == 12
    assert "Searches for each prompt: 6 at step 2, 6 at step 6, 6 at step 9 for drift." in section
    assert "it&#39;s &lt;dense&gt; &amp; short" in section
    assert "speed-up in computed work" in page and "fewer blocks" not in page and "computed blocks" not in page
    assert "By the clock" in page
    timeline = page[page.index('<section id="timeline">') :].split("</section>")[0]
    assert "AdaSpa on gated" in timeline and "AdaSpa 0.51" not in timeline


def test_the_terminal_and_the_table_tell_the_same(study_with_attention) -> None:
    made, folder, _ = study_with_attention
    said = verdict(made)
    assert len(said["attention"]) == 3
    first = said["attention"][0]
    assert re.match(
        r"AdaSpa 0.51: \d+\.\d\dx measured, 1.43x predicted; PSNR 40.0 dB to plain; bright 1.00, class", first
    )
    assert re.search(r"kept \d+ % of the blocks with 96.0 % of the mass \(least 90.0 %\), later 89.6 %", first)
    assert "attention's work; 18 searches, 6 for drift; 1 of 3 layers stay dense" in first
    assert said["sentences"][0].startswith("At 1.4x less computed work, AdaSpa lies at PSNR")
    render(made, folder)
    table = (folder / "report.md").read_text(encoding="utf-8")
    assert (
        "## Attention" in table
        and "| AdaSpa 0.51 | 22 % | 96.0 % | 90.0 % | 89.6 % | 87.0 % | 50 % | 18 | 6 |" in table
    )


def test_a_heat_map_of_a_large_model_stays_inside_and_readable() -> None:
    rng = np.random.default_rng(0)
    attention = {
        "layers": [f"{n}.attn" for n in range(60)],
        "density": rng.random((60, 24)).tolist(),
        "recall": [None] * 60,
        "least": [None] * 60,
        "dense": [0.0] * 60,
    }
    drawing = heat_map({"label": "large", "attention": attention})
    boxes = re.findall(r'<rect [^>]*x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"', drawing)
    height = float(re.search(r'viewBox="0 0 360 (\d+)"', drawing).group(1))  # pyright: ignore[reportOptionalMemberAccess]
    assert len(boxes) == 60 * 24
    assert max(float(x) + float(w) for x, _, w, _ in boxes) <= 360
    assert max(float(y) + float(h) for _, y, _, h in boxes) <= height - 20
    names = [float(x) for x in re.findall(r'tick middle" x="([\d.]+)"', drawing)]
    assert np.diff(names).min() > 18


def test_shades_grow_with_density_and_finest_where_little_is_kept() -> None:
    shades = [shade(d) for d in np.linspace(0, 1, 21)]
    assert np.diff(shades).min() > 0 and 0 < shades[0] < shades[-1] == 1.0
    assert shade(0.1) - shade(0.05) > shade(0.95) - shade(0.9)


def test_no_sparse_attention_no_section(study_with_attention) -> None:
    made, _, _ = study_with_attention
    without = [c | {"attention": None} for c in made["contenders"]]
    assert attention_section({**made, "contenders": without}) is None


def test_a_contender_that_is_behind_says_so(study_with_attention) -> None:
    made, _, _ = study_with_attention
    found = {c["name"]: c for c in made["contenders"]}

    def timed(name: str, times: float, quality: float, speedup: float) -> dict[str, Any]:
        c = found[name]
        metrics = {**c["metrics"], "plain": {"psnr": {"value": quality, "low": quality, "high": quality}}}
        wall = {"value": times, "low": times, "high": times, "n": 2}
        return c | {"metrics": metrics, "time": {"wall": wall}, "speedup": wall | {"value": speedup}}

    ours, rival = timed("sparse-0.51", 1.2, 30.0, 1.5), timed("fewer", 1.25, 31.0, 1.25)
    assert behind({**made, "contenders": [ours, rival]}, ours) == ["behind 8 steps in time and fidelity"]
    ours["beaten_by"] = {"plain": ["fewer"]}
    assert behind({**made, "contenders": [ours, rival]}, ours)[0] == "behind 8 steps in work and fidelity"
    closer = timed("sparse-0.51", 1.2, 32.0, 1.5) | {"beaten_by": {}}
    assert behind({**made, "contenders": [closer, rival]}, closer) == []
