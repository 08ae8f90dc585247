"""MagCache of diffusers: skip while residuals, whose sizes one run has shown, are expected to hardly change.

Source: Ma et al., "MagCache: Fast Video Generation with Magnitude-Aware Cache", NeurIPS 2025, arXiv:2506.09045.
"""

from __future__ import annotations

import ast
import io
import re
from collections.abc import Callable
from contextlib import AbstractContextManager, redirect_stdout
from typing import Any

import numpy as np

from ...errors import MeasurementError
from .peer import PEERS, Peer, cache_enabled, library_of


def calibrated(pipe: Any, steps: int, run: Callable[[], object]) -> dict[str, Any]:
    """The ratios of one run, which diffusers prints and keeps nowhere; a mean over guidance branches.

    Raises: MeasurementError where it printed none, as for fewer or more denoiser calls than steps.
    """
    config = library_of(pipe).MagCacheConfig(num_inference_steps=steps, calibrate=True)
    with redirect_stdout(io.StringIO()) as printed, cache_enabled(pipe, config):
        run()
    lists = [ast.literal_eval(text) for text in re.findall(r"\[[-+.\de, ]+\]", printed.getvalue())]
    ratios = [values for values in lists if len(values) == steps]
    if not ratios:
        raise MeasurementError(f"MagCache's calibration over {steps} steps gave no ratios")
    return {"steps": steps, "ratios": np.mean(ratios, axis=0).tolist()}


def apply(pipe: Any, *, threshold: float, steps: int, ratios: list[float]) -> AbstractContextManager[Any]:
    """`pipe` with the cache on, its other settings as they come. It asks nothing of the sample at hand."""
    config = library_of(pipe).MagCacheConfig(threshold=threshold, num_inference_steps=steps, mag_ratios=ratios)
    return cache_enabled(pipe, config)


PEERS.add(
    "magcache",
    Peer(
        label="MagCache",
        settings=tuple({"threshold": t} for t in (0.03, 0.06, 0.12, 0.24, 0.48)),
        apply=apply,
        prepare=calibrated,
    ),
)
