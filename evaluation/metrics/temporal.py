"""How a clip moves, beside how its reference moves: flicker, and error along the reference's motion without a flow net.

Distances of single frames miss both: a clip that is a little too bright everywhere looks fine, one that is too bright
in every other frame does not.
"""

from __future__ import annotations

import numpy as np

from ...errors import MeasurementError
from .metric import METRICS, Metric, same_shape

BLOCK = 8
"""Side of the squares whose motion is found, in pixels."""

REACH = 4
"""How far a square is looked for, in pixels each way."""

FOUND = 0.05
"""A square of the reference whose best match is further off than this (in 0..1) has come into view, and is left out."""


def clips(made: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64. Raises: MeasurementError where shapes differ or there are fewer than two frames."""
    a, b = same_shape(made, reference)
    if a.ndim != 4 or len(a) < 2:
        raise MeasurementError(f"motion needs a clip of two frames or more [T, H, W, C]; this is {list(a.shape)}")
    return a, b


def flicker(made: np.ndarray, reference: np.ndarray) -> float:
    """Mean absolute difference between the frame-to-frame changes of both, in levels of 0..255.

    An error that stays the same over time adds nothing, one that comes and goes adds twice its size.

    Source: the mean absolute frame difference of Huang et al., "VBench", CVPR 2024 (arXiv:2311.17982), "temporal
    flickering", taken of changes of a clip less changes of its reference, as in the temporal difference error of Chu
    et al., "Learning Temporal Coherence via Self-Supervision", SIGGRAPH 2020 (arXiv:1811.09393), with pixels in place
    of flow.

    Shapes: [T, H, W, C], both alike, T at least 2.
    """
    a, b = clips(made, reference)
    return 255.0 * float(np.abs(np.diff(a, axis=0) - np.diff(b, axis=0)).mean())


def by_blocks(x_THWC: np.ndarray, side: int) -> np.ndarray:
    """Mean over squares of `side` pixels and colours, [T, Y, X]."""
    t, h, w, c = x_THWC.shape
    return x_THWC.reshape(t, h // side, side, w // side, side, c).mean(axis=(2, 4, 5))


def shifted(x_THWC: np.ndarray, dy: int, dx: int) -> np.ndarray:
    """Each pixel's value (dy, dx) further on; edges repeat."""
    padded = np.pad(x_THWC, ((0, 0), (REACH, REACH), (REACH, REACH), (0, 0)), mode="edge")
    h, w = x_THWC.shape[1:3]
    return padded[:, REACH + dy : REACH + dy + h, REACH + dx : REACH + dx + w]


def warp_error(made: np.ndarray, reference: np.ndarray) -> float:
    """How differently both change along the reference's motion, in levels of 0..255; 0 where both move alike.

    Every square of 8 x 8 pixels of a reference frame is looked for in the reference's frame before, up to 4 pixels
    away. What is left of the difference there, square by square, is taken for the reference and, with the same
    displacement, for the clip; the value is the mean absolute difference of the two. Squares that the reference itself
    does not find are left out.

    Source: the warping error of Lai et al., "Learning Blind Video Temporal Consistency", ECCV 2018 (arXiv:1808.00449),
    equation 4. Differs from the paper: motion by exhaustive block matching in place of a flow network, and the
    reference's own error is compared with rather than zero, for which a frozen or blurred clip would win.

    Shapes: [T, H, W, C], both alike, T at least 2.
    """
    a, b = clips(made, reference)
    side = min(BLOCK, *a.shape[1:3])
    h, w = (n // side * side for n in a.shape[1:3])
    a, b = a[:, :h, :w], b[:, :h, :w]
    shifts = sorted(
        ((dy, dx) for dy in range(-REACH, REACH + 1) for dx in range(-REACH, REACH + 1)),
        key=lambda s: s[0] ** 2 + s[1] ** 2,
    )
    least = np.full((len(b) - 1, h // side, w // side), np.inf)
    of_made = np.zeros_like(least)
    for dy, dx in shifts:  # nearest first: of equal matches, the smallest motion is kept
        residual = by_blocks(np.abs(b[1:] - shifted(b[:-1], dy, dx)), side)
        better = residual < least - 1e-12
        if better.any():
            of_made = np.where(better, by_blocks(np.abs(a[1:] - shifted(a[:-1], dy, dx)), side), of_made)
            least = np.where(better, residual, least)
    found = least <= FOUND
    return 255.0 * float(np.abs(of_made - least)[found].mean()) if found.any() else float("nan")


METRICS.add(
    "flicker",
    Metric(
        label="flicker",
        measure=flicker,
        better="lower",
        frames=2,
        summary="Mean absolute difference of frame-to-frame change from the reference's, in levels of 0..255.",
    ),
)
METRICS.add(
    "warp_error",
    Metric(
        label="warp error",
        measure=warp_error,
        better="lower",
        frames=2,
        summary="Change along the reference's motion (8 x 8 squares, matched without a flow network) beside the "
        "reference's own, in levels of 0..255; squares that come into view are left out.",
    ),
)
