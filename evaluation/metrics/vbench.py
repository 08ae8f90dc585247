"""VBench: three dimensions of its suite that any clip can be held to, through its authors' package."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from .metric import METRICS, Metric
from .weights import cache_folder, needs

FRAME_RATE = 8


def folder() -> Path:
    """Where the package keeps its weights."""
    return cache_folder("VBENCH_CACHE_DIR", "vbench")


def dino() -> dict[str, str]:
    """Files of "subject consistency": does the subject look the same in every frame?"""
    home = folder() / "dino_model"
    return {"repo_or_dir": str(home / "facebookresearch_dino_main"), "path": str(home / "dino_vitbase16_pretrain.pth")}


def amt() -> dict[str, str]:
    """Files of "motion smoothness": can frames be interpolated from their neighbours?"""
    return {"config": str(folder() / "amt_model/AMT-S.yaml"), "ckpt": str(folder() / "amt_model/amt-s.pth")}


def musiq() -> dict[str, str]:
    """Files of "imaging quality": blur, noise and exposure of single frames."""
    return {"model_path": str(folder() / "pyiqa_model/musiq_spaq_ckpt-358bb6af.pth")}


DIMENSIONS: dict[str, tuple[Callable[[], dict[str, str]], dict[str, Any]]] = {
    "subject_consistency": (dino, {"model": "dino_vitb16", "source": "local"}),
    "motion_smoothness": (amt, {}),
    "imaging_quality": (musiq, {}),
}
"""By name of the dimension: the files it reads, and what else its function is handed."""


def vbench(dimension: str, made: np.ndarray, prompt: str) -> float:
    """The suite's value for one clip.

    Source: Huang et al., "VBench", CVPR 2024, arXiv:2311.17982; `vbench.<dimension>.compute_<dimension>`.

    Shapes: [T, H, W, 3] in 0..1.
    """
    from imageio.v3 import imwrite

    files, more = DIMENSIONS[dimension]
    compute = getattr(import_module(f"vbench.{dimension}"), f"compute_{dimension}")
    with TemporaryDirectory() as place:
        clip, listing = Path(place) / "clip.mp4", Path(place) / "clips.json"
        frames = (made.clip(0, 1) * 255).round().astype(np.uint8)
        imwrite(clip, frames, fps=FRAME_RATE, macro_block_size=1, quality=10)
        entry = {"dimension": [dimension], "prompt_en": prompt, "video_list": [str(clip)]}
        listing.write_text(json.dumps([entry]), encoding="utf-8")
        return float(compute(str(listing), "cpu", files() | more)[0])


def weight_files(dimension: str) -> list[Path]:
    return [Path(path) for path in DIMENSIONS[dimension][0]().values()]


for name in DIMENSIONS:
    METRICS.add(
        f"vbench_{name}",
        Metric(
            label=f"VBench {name.replace('_', ' ')}",
            measure=partial(vbench, name),
            kind="prompt",
            better="higher",
            digits=3,
            frames=2,
            missing=needs(("vbench",), partial(weight_files, name)),
            summary=f"VBench's {name.replace('_', ' ')} of each clip, without the prompts of its suite.",
        ),
    )
