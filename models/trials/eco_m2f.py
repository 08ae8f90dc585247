"""ECO-M2F's claim in small: what the earliest exit is worth where training has drawn exits, and where it has not."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..eco_m2f import EcoM2fConfig, build_eco, encoder_of, exit_loss, semantic_map
from .fit import fit
from .scenes import CLASSES, Scene, mean_overlap, scenes
from .trial import Trial

SIDE, STEPS, BATCH, TEST = 64, 500, 4, 64
CONFIG = EcoM2fConfig(
    swin_width=16,
    swin_depths=(1, 1, 1, 1),
    swin_heads=(1, 2, 4, 8),
    window=4,
    width=64,
    heads=4,
    encoder_hidden=64,
    decoder_layers=1,
    decoder_hidden=64,
    queries=8,
    classes=len(CLASSES),
    points=128,
)
"""Of a model that learns to find shapes in minutes."""


def as_inputs(batch: list[Scene]) -> dict[str, Any]:
    """What transformers' Mask2Former takes in training."""
    return {
        "pixel_values": torch.stack([scene.picture for scene in batch]),
        "mask_labels": [scene.masks.float() for scene in batch],
        "class_labels": [scene.kinds for scene in batch],
    }


def train(seed: int, *, drawn: bool, steps: int = STEPS) -> Any:
    """A model that has seen scenes, each batch behind an exit drawn for it or behind the last one."""
    torch.manual_seed(seed)
    model, generator = build_eco(CONFIG), torch.Generator().manual_seed(seed)
    encoder = encoder_of(model)

    def loss(_step: int) -> Tensor:
        exit = int(torch.randint(encoder.first, encoder.last + 1, (), generator=generator)) if drawn else encoder.last
        return exit_loss(model, exit, **as_inputs(scenes(BATCH, SIDE, generator)))

    fit(model, loss, steps=steps, rate=3e-3)
    return model


@cache
def overlaps(seed: int, drawn: bool) -> list[float]:
    """Mean overlap of the classes on scenes of its own, at each exit of a trained model."""
    model, test = train(seed, drawn=drawn), scenes(TEST, SIDE, torch.Generator().manual_seed(10_000))
    inputs, true = torch.stack([scene.picture for scene in test]), torch.stack([scene.classes for scene in test])
    encoder, found = encoder_of(model), []
    with torch.no_grad():
        for exit in encoder.exits:
            encoder.exit = exit
            found.append(mean_overlap(semantic_map(model(pixel_values=inputs), (SIDE, SIDE)), true, len(CLASSES)))
    return found


def arm(drawn: bool, place: int) -> Callable[[int], float]:
    """One exit of a model trained so."""
    return lambda seed: overlaps(seed, drawn)[place]


TRIAL = Trial(
    claim="a model that learns behind exits drawn at random is better at the earliest exit than one that never left",
    measure="mean overlap (intersection over union) of the classes of pixels",
    higher_is_better=True,
    arms={
        "exits drawn, earliest exit": arm(True, 0),
        "last exit only, earliest exit": arm(False, 0),
        "exits drawn, last exit": arm(True, -1),
        "last exit only, last exit": arm(False, -1),
    },
    against=("last exit only, earliest exit",),
    task=f"scenes of up to 5 shapes in {SIDE} x {SIDE} pixels, a Mask2Former of 0.6 M, {STEPS} steps of {BATCH}",
)
