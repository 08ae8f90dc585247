"""Flicker and warp error on clips whose motion is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from outpace.errors import MeasurementError
from outpace.evaluation.metrics.temporal import flicker, warp_error


def sliding(frames: int = 5, speed: int = 2, side: int = 32) -> np.ndarray:
    """Smooth random texture that moves to the right at a whole number of pixels a frame."""
    rng = np.random.default_rng(3)
    wide = rng.random((side, side + speed * frames, 3))
    for axis in (0, 1):
        wide = (np.roll(wide, 1, axis) + wide + np.roll(wide, -1, axis)) / 3
    return np.stack([wide[:, speed * (frames - t) : speed * (frames - t) + side] for t in range(frames)])


def test_a_lasting_error_does_not_flicker_and_one_that_alternates_counts_twice() -> None:
    clip = sliding() * 0.5 + 0.25
    alternating = clip + 0.01 * np.array([1, -1, 1, -1, 1])[:, None, None, None]
    assert flicker(clip + 0.1, clip) == pytest.approx(0.0, abs=1e-9)
    assert flicker(alternating, clip) == pytest.approx(255 * 0.02)
    assert flicker(np.repeat(clip[:1], 5, axis=0), clip) == pytest.approx(255 * np.abs(np.diff(clip, axis=0)).mean())


def test_the_reference_own_motion_costs_nothing_and_leaving_it_does() -> None:
    clip = sliding()
    assert warp_error(clip, clip) == 0.0
    assert warp_error(clip * 0.9, clip) < 0.5  # moves the same way, a little paler
    frozen = warp_error(np.repeat(clip[:1], 5, axis=0), clip)
    jittered = warp_error(np.roll(clip, 3, axis=1) * [[[[1]]]] + 0.1 * (np.arange(5) % 2)[:, None, None, None], clip)
    assert frozen > 5 and jittered > 5


def test_what_the_reference_does_not_find_again_is_left_out() -> None:
    rng = np.random.default_rng(0)
    noise = rng.random((3, 16, 16, 3))  # every frame is new: nothing can be followed
    assert math.isnan(warp_error(noise, noise))
    with pytest.raises(MeasurementError, match="two frames"):
        flicker(noise[0], noise[0])
    with pytest.raises(MeasurementError, match="two frames"):
        warp_error(noise[:1], noise[:1])


def test_frames_smaller_than_a_square_are_one_square() -> None:
    clip = sliding(side=6)
    assert warp_error(clip, clip) in (0.0, pytest.approx(0.0)) or math.isnan(warp_error(clip, clip))
