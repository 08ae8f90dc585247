"""ImageReward: how much people would like a picture for its caption, as a network learned it from their rankings."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from .metric import METRICS, Metric
from .weights import cache_folder, hub_file, needs

FILES = ("ImageReward.pt", "med_config.json")


def weight_files() -> list[Path]:
    """Its checkpoint and configuration, and the vocabulary of the tokenizer that it loads by name."""
    folder = cache_folder("IMAGEREWARD_CACHE", "ImageReward")
    return [*(folder / name for name in FILES), hub_file("bert-base-uncased", "vocab.txt")]


@cache
def reward() -> Any:
    """The model, loaded once. Its own loader asks the network for files that are here; this does not."""
    import torch
    from ImageReward.ImageReward import ImageReward  # pyright: ignore[reportMissingImports]

    checkpoint, config, _ = weight_files()
    model = ImageReward(device="cpu", med_config=str(config))
    model.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True), strict=False)
    return model.eval()


def image_reward(made: np.ndarray, prompt: str) -> float:
    """The reward, about -2 to 2; of a clip, the mean over its frames.

    Source: Xu et al., "ImageReward", NeurIPS 2023, arXiv:2304.05977, through its authors' package.

    Shapes: [H, W, 3] or [T, H, W, 3] in 0..1.
    """
    from PIL import Image

    frames = ((made[None] if made.ndim == 3 else made).clip(0, 1) * 255).round().astype(np.uint8)
    return float(np.mean([reward().score(prompt, Image.fromarray(frame)) for frame in frames]))


METRICS.add(
    "image_reward",
    Metric(
        label="ImageReward",
        measure=image_reward,
        kind="prompt",
        better="higher",
        digits=3,
        missing=needs(("ImageReward",), weight_files),
        summary="Learned human preference for a picture given its caption; hardly sees blur.",
    ),
)
