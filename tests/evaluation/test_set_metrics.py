"""Distances of whole sets, their intervals, metrics without weights, and paired tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch
from torchmetrics.image.kid import poly_mmd

from outpace.errors import MeasurementError
from outpace.evaluation import METRICS, Metric, build_results, run_study
from outpace.evaluation.intervals import jackknife_interval
from outpace.evaluation.metrics import vbench
from outpace.evaluation.metrics.frechet import frechet
from outpace.evaluation.metrics.kernel_distance import kernel_distance, polynomial
from outpace.evaluation.metrics.weights import needs
from outpace.evaluation.paired import beside_plain, holm, sign_flip_p


def sets(n: int, d: int, shift: float = 0.5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    reference = rng.normal(size=(n, d))
    return reference * 1.2 + shift + 0.3 * rng.normal(size=(n, d)), reference


def test_frechet_is_what_the_matrix_root_gives() -> None:
    made, reference = sets(60, 8)
    c1, c2 = np.cov(made.T), np.cov(reference.T)
    root = scipy.linalg.sqrtm(c1 @ c2).real
    truth = ((made.mean(0) - reference.mean(0)) ** 2).sum() + np.trace(c1 + c2 - 2 * root)
    assert frechet(made, reference) == pytest.approx(truth, rel=1e-6)
    assert frechet(reference, reference) == pytest.approx(0.0, abs=1e-9)
    with pytest.raises(MeasurementError, match="more than 8 requests"):
        frechet(made[:8], reference[:8])


def test_kernel_distance_is_unbiased_and_leaves_a_request_its_own_pair() -> None:
    made, reference = sets(40, 6)
    mixed = polynomial(made, reference)
    own_pairs = 2 * (mixed.mean() - (mixed.sum() - np.trace(mixed)) / (40 * 39))
    theirs = poly_mmd(torch.from_numpy(made), torch.from_numpy(reference)) + own_pairs
    assert kernel_distance(made, reference) == pytest.approx(theirs.item())
    assert kernel_distance(reference, reference) == 0.0
    same = [kernel_distance(*np.random.default_rng(s).normal(size=(2, 20, 4))) for s in range(400)]
    assert abs(np.mean(same)) < 3 * np.std(same) / 20  # two sets of one kind: zero on average, not above


def test_the_jackknife_interval_covers_a_mean_as_the_t_interval_does() -> None:
    made, reference = sets(24, 1)
    found = jackknife_interval(lambda a, b: float((a - b).mean()), made, reference)
    low, high = scipy.stats.t.interval(0.95, 23, (made - reference).mean(), scipy.stats.sem(made - reference))
    assert (found["low"], found["high"]) == (pytest.approx(float(low[0])), pytest.approx(float(high[0])))
    made, reference = sets(9, 8)
    assert jackknife_interval(frechet, made, reference)["low"] is None  # eight are left, too few for a covariance


def test_sign_flips_are_exact_for_few_and_agree_with_scipy_for_many() -> None:
    assert sign_flip_p(np.ones(5)) == 2 / 32
    assert sign_flip_p(np.zeros(20)) == 1.0
    x = np.random.default_rng(1).normal(0.3, 1, size=40)
    theirs = scipy.stats.permutation_test(
        (x, np.zeros(40)), lambda a, b: np.mean(a - b), permutation_type="samples", n_resamples=9999, random_state=0
    )
    assert sign_flip_p(x) == pytest.approx(theirs.pvalue, abs=0.02)


def test_under_no_difference_a_p_value_is_below_5_percent_in_5_percent_of_draws() -> None:
    rng = np.random.default_rng(5)
    low = np.mean([sign_flip_p(rng.normal(size=10)) <= 0.05 for _ in range(1000)])
    assert 0.03 < low < 0.07


def test_holm_steps_down() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == {"a": 0.03, "c": 0.06, "b": 0.06}
    tests = beside_plain({"same": [1.0, 2.0], "more": [2.0, 3.0]}, [1.0, 2.0])
    assert tests["same"]["value"] == 0 and tests["same"]["p"] == 1.0 and tests["more"]["value"] == 1.0


def colours(media: list[np.ndarray]) -> np.ndarray:
    return np.stack([m.mean(axis=(0, 1)) for m in media])


def summed_up(study) -> dict:
    return build_results(study, run_study(study, progress=False), pipeline={}, command="", environment={})


def test_a_study_takes_set_distances_and_tests_each_contender_beside_plain(tmp_path: Path, make_study) -> None:
    results = summed_up(make_study(tmp_path, features=colours))
    found = {c["name"]: c for c in results["contenders"]}
    for name in ("frechet", "kernel_distance"):
        entry = found["steps-12"]["metrics"]["plain"][name]
        assert entry["n"] == 12 and entry["low"] < entry["value"] < entry["high"]
    far, near = (found[f"steps-{n}"]["metrics"]["plain"]["frechet"]["value"] for n in (12, 33))
    assert far > near > 0
    tests = found["steps-12"]["beside_plain"]
    assert tests["converged"]["psnr"]["value"] < 0 and tests["converged"]["psnr"]["p_adjusted"] < 0.05
    assert set(tests["checks"]) == {"bright", "class"} and tests["checks"]["class"]["p"] == 1.0
    assert "beside_plain" not in found["plain"]


def test_what_cannot_run_is_named_with_its_reason(tmp_path: Path, make_study) -> None:
    from outpace.evaluation.report.verdict import verdict

    nowhere = tmp_path / "weights" / "net.pth"
    METRICS.add(
        "learned",
        Metric(label="learned", measure=lambda a, b: 0.0, better="lower", missing=needs((), lambda: [nowhere])),
    )
    METRICS.add(
        "likes", Metric(label="likes", kind="prompt", measure=lambda made, prompt: len(prompt), better="higher")
    )
    try:
        results = summed_up(make_study(tmp_path / "a", requests=2))
        reasons = {entry["metric"]: entry for entry in results["not_run"]}
        assert reasons["learned"]["reason"] == f"weights missing at {nowhere}" and reasons["learned"]["applies"]
        assert any(f"learned not run: weights missing at {nowhere}" == gap for gap in verdict(results)["gaps"])
        assert reasons["frechet"]["reason"] == "no feature extractor is known for this pipeline"
        assert not reasons["flicker"]["applies"] and "2 frames" in reasons["flicker"]["reason"]
        assert reasons["likes"]["reason"] == "prompts are classes, not texts"
        shown = {key for c in results["contenders"] for table in (c.get("metrics") or {}).values() for key in table}
        assert shown | set(reasons) == set(METRICS)
        nowhere.parent.mkdir()
        nowhere.write_bytes(b"")
        again = summed_up(make_study(tmp_path / "a", requests=2))
        assert all(entry["metric"] != "learned" for entry in again["not_run"])
    finally:
        METRICS.remove("learned")
        METRICS.remove("likes")


@pytest.mark.parametrize("name", [n for n in METRICS if n.split("_")[0] in ("lpips", "fid", "clip", "image", "vbench")])
def test_metrics_with_weights_say_where_those_belong(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for variable in ("IMAGEREWARD_CACHE", "VBENCH_CACHE_DIR", "TORCH_HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setattr("outpace.evaluation.metrics.weights.find_spec", lambda package: object())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    reason = METRICS[name].missing() or ""
    assert reason.startswith("weights missing at ") and str(tmp_path) in reason
    monkeypatch.setattr("outpace.evaluation.metrics.weights.find_spec", lambda package: None)
    assert (METRICS[name].missing() or "").startswith("not installed: ")


@pytest.mark.parametrize("dimension", ["subject_consistency", "motion_smoothness", "imaging_quality"])
def test_vbench_is_handed_a_listing_of_one_readable_clip(dimension: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import json
    import sys
    from types import SimpleNamespace

    from imageio.v3 import imread

    clip = np.linspace(0, 1, 4)[:, None, None, None] * np.ones((4, 32, 48, 3))
    handed = []

    def compute(listing: str, device: str, files: dict[str, str]) -> tuple[float, list[object]]:
        entry = json.loads(Path(listing).read_text(encoding="utf-8"))[0]
        handed.append((entry, files, imread(entry["video_list"][0])))
        return 0.75, []

    monkeypatch.setitem(sys.modules, "vbench", SimpleNamespace())
    monkeypatch.setitem(sys.modules, f"vbench.{dimension}", SimpleNamespace(**{f"compute_{dimension}": compute}))
    assert METRICS[f"vbench_{dimension}"].measure(clip, "a grey field") == 0.75
    entry, files, frames = handed[0]
    assert entry["dimension"] == [dimension] and entry["prompt_en"] == "a grey field"
    assert frames.shape == clip.shape and np.abs(frames / 255 - clip).max() < 0.05
    assert all(str(path) in files.values() for path in vbench.weight_files(dimension))
