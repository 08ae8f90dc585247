"""CLIP score: how well a picture fits its caption, by a network trained on pairs of both."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from .metric import METRICS, Metric
from .weights import hub_file, needs

MODEL = "openai/clip-vit-base-patch16"
FILES = ("pytorch_model.bin", "config.json", "preprocessor_config.json", "tokenizer.json")


@cache
def clip() -> tuple[Any, Any]:
    """Model and processor, loaded once from the cache on this machine."""
    from transformers import CLIPModel, CLIPProcessor

    model = CLIPModel.from_pretrained(MODEL, local_files_only=True).eval()
    return model, CLIPProcessor.from_pretrained(MODEL, local_files_only=True)


def clip_score(made: np.ndarray, prompt: str) -> float:
    """100 times the cosine between picture and caption, not below 0; of a clip, the mean over its frames.

    Source: Hessel et al., "CLIPScore", EMNLP 2021, arXiv:2104.08718, with 100 for its weight of 2.5, as torchmetrics
    holds it.

    Shapes: [H, W, 3] or [T, H, W, 3] in 0..1.
    """
    import torch
    from torchmetrics.functional.multimodal.clip_score import clip_score as score

    frames = torch.from_numpy(((made[None] if made.ndim == 3 else made).clip(0, 1) * 255).round().astype(np.uint8))
    pictures = list(frames.permute(0, 3, 1, 2))
    with torch.no_grad():
        return float(score(pictures, [prompt] * len(pictures), model_name_or_path=clip))


METRICS.add(
    "clip_score",
    Metric(
        label="CLIP score",
        measure=clip_score,
        kind="prompt",
        better="higher",
        missing=needs(
            ("torchmetrics", "transformers"),
            lambda: [hub_file(MODEL, name) for name in FILES],
        ),
        summary=f"Fit of picture and caption ({MODEL}), 0..100; compares with the plain pipeline's own.",
    ),
)
