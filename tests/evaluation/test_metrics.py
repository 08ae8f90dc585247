"""Metrics against torchmetrics and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from outpace.errors import MeasurementError
from outpace.evaluation import METRICS, Metric
from outpace.evaluation.metrics.latent_l2 import latent_l2
from outpace.evaluation.metrics.ms_ssim import WEIGHTS, ms_ssim, scales_of
from outpace.evaluation.metrics.psnr import psnr
from outpace.evaluation.metrics.ssim import ssim


def pair(shape: tuple[int, ...], noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    picture = rng.random(shape, dtype=np.float32)
    made = np.clip(picture + noise * rng.normal(size=shape), 0, 1).astype(np.float32)
    return made, picture


def as_torch(x: np.ndarray) -> torch.Tensor:
    frames = x[None] if x.ndim == 3 else x
    return torch.from_numpy(frames).permute(0, 3, 1, 2)


@pytest.mark.parametrize("shape", [(32, 48, 3), (17, 23, 1), (5, 16, 24, 3)])
@pytest.mark.parametrize("noise", [0.01, 0.2])
def test_psnr_and_ssim_equal_torchmetrics(shape: tuple[int, ...], noise: float) -> None:
    made, reference = pair(shape, noise)
    assert psnr(made, reference) == pytest.approx(
        peak_signal_noise_ratio(as_torch(made), as_torch(reference), data_range=1.0).item(), abs=1e-3
    )
    everywhere = structural_similarity_index_measure(
        as_torch(made), as_torch(reference), data_range=1.0, return_full_image=True
    )[1]
    inside = everywhere[..., 5:-5, 5:-5]  # theirs reflects the picture at its edges, the paper and we leave edges out
    assert ssim(made, reference) == pytest.approx(inside.mean().item(), abs=2e-4)


def test_psnr_of_a_known_error_is_known() -> None:
    reference = np.full((4, 5, 3), 0.5, dtype=np.float32)
    assert psnr(reference + np.float32(0.125), reference) == pytest.approx(20 * math.log10(8))
    assert psnr(reference, reference) == math.inf


def test_ssim_of_identical_pictures_is_one_and_small_ones_are_refused() -> None:
    made, reference = pair((16, 16, 3), 0.3)
    assert ssim(reference, reference) == pytest.approx(1.0, abs=1e-12)
    assert ssim(made, reference) < 0.9
    with pytest.raises(MeasurementError, match="11 x 11"):
        ssim(made[:10], reference[:10])


def test_latent_l2_is_relative() -> None:
    reference = np.array([3.0, 4.0])
    assert latent_l2(reference * 1.5, reference) == pytest.approx(0.5)
    assert latent_l2(np.zeros(2), np.zeros(2)) == 0.0
    assert latent_l2(np.ones(2), np.zeros(2)) == math.inf


@pytest.mark.parametrize("name", [name for name, m in METRICS.items() if m.kind == "pair"])
def test_every_metric_refuses_other_shapes_and_prefers_the_closer(name: str) -> None:
    metric = METRICS[name]
    if metric.missing():
        pytest.skip(f"{name}: {metric.missing()}")
    shape = (3,) * (metric.frames > 1) + (max(16, metric.smallest),) * 2 + (3,)
    reference = pair(shape, 0)[1]
    if metric.frames > 1:
        reference[:] = reference[0]  # something to follow: every frame of new noise would have no motion
    near, far = (reference + pair(shape, noise)[0] - pair(shape, noise)[1] for noise in (0.02, 0.2))
    closer, further = metric.measure(near, reference), metric.measure(far, reference)
    assert closer > further if metric.better == "higher" else closer < further
    with pytest.raises(MeasurementError, match="same size"):
        metric.measure(near[..., :12, :], reference)


@pytest.mark.parametrize(("size", "scales"), [(176, 5), (110, 4), (32, 2)])
def test_ms_ssim_equals_torchmetrics_up_to_edges(size: int, scales: int) -> None:
    assert scales_of(size) == scales
    made, reference = (x for x in pair((size, size + 8, 3), 0.2))
    betas = tuple(w / sum(WEIGHTS[:scales]) for w in WEIGHTS[:scales])
    theirs = multiscale_structural_similarity_index_measure(
        as_torch(made), as_torch(reference), data_range=1.0, betas=betas
    )
    assert ms_ssim(made, reference) == pytest.approx(theirs.item(), abs=0.02)  # theirs reflects pictures at their edges
    assert ms_ssim(reference, reference) == pytest.approx(1.0)
    assert ms_ssim(made, reference) > ssim(made, reference)  # noise averages out at coarse scales


def test_a_metric_is_added_by_registering_it(tmp_path, make_study) -> None:
    from outpace.evaluation import build_results, run_study

    METRICS.add("darkest", Metric(label="darkest", measure=lambda a, b: float(a.min()), better="lower"))
    try:
        study = make_study(tmp_path, requests=2, speedups=(2.0,))
        results = build_results(study, run_study(study, progress=False), pipeline={}, command="", environment={})
    finally:
        METRICS.remove("darkest")
    gated = next(c for c in results["contenders"] if c["kind"] == "gated")
    assert 0 <= gated["metrics"]["plain"]["darkest"]["value"] <= 1
