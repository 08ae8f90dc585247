"""PredFormer's claim in small: moving digits predicted with space and time in turn, and one after the other."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..predformer import PredFormer, PredFormerConfig
from .digits import TEST, digits
from .fit import fit
from .trial import Trial

FRAMES, SIDE, STEPS = 5, 24, 300


def clips(count: int, generator: torch.Generator, *, held: bool = False, moving: int = 2) -> Tensor:
    """(B, 2 FRAMES, 1, SIDE, SIDE): digits that move straight on and are thrown back by the borders."""
    pictures = digits()[0][:TEST] if held else digits()[0][TEST:]
    made = torch.zeros(count, 2 * FRAMES, 1, SIDE, SIDE)
    room = SIDE - 8
    for clip in made:
        for _ in range(moving):
            picture = pictures[torch.randint(len(pictures), (1,), generator=generator)][0]
            place = torch.rand(2, generator=generator) * room
            pace = (torch.rand(2, generator=generator) * 2 - 1) * 3
            for frame in clip:
                top, left = (room - (place % (2 * room) - room).abs()).round().long().tolist()
                part = frame[:, top : top + 8, left : left + 8]
                part.copy_(torch.maximum(part, picture))
                place = place + pace
    return made


def config_of(layout: str) -> PredFormerConfig:
    """Four blocks."""
    return PredFormerConfig(
        layout=layout, frames=FRAMES, picture=(SIDE, SIDE), patch=4, blocks=4, width=48, heads=4, expansion=2
    )


def learned(layout: str, seed: int, *, steps: int = STEPS, moving: int = 2) -> PredFormer:
    """A model that was shown five frames and the five after them."""
    torch.manual_seed(seed)
    model, generator = PredFormer(config_of(layout)), torch.Generator().manual_seed(seed)

    def loss(_step: int) -> Tensor:
        seen, after = clips(8, generator, moving=moving).split(FRAMES, 1)
        return (model(seen) - after).square().mean()

    fit(model, loss, steps=steps, rate=2e-3)
    return model


def squares_a_frame(found: Tensor, truth: Tensor) -> float:
    """Sum of the squared errors of a frame, the mean over frames."""
    return float((found - truth).square().sum((2, 3, 4)).mean())


def arm(layout: str | None) -> Callable[[int], float]:
    """Training a layout; the last frame again where None."""

    def run(seed: int) -> float:
        seen, after = clips(128, torch.Generator().manual_seed(10_000), held=True).split(FRAMES, 1)
        with torch.no_grad():
            made = seen[:, -1:].expand_as(after)
        if layout is not None:
            model = learned(layout, seed)
            with torch.no_grad():
                made = model(seen)
        return squares_a_frame(made, after)

    return run


TRIAL = Trial(
    claim="space and time in turn predict better than all of space before all of time",
    measure="squared error of a frame",
    higher_is_better=False,
    arms={
        "time and space in turn": arm("bin-ts"),
        "space, then time": arm("fac-st"),
        "time, then space": arm("fac-ts"),
        "the last frame again": arm(None),
    },
    against=("space, then time", "the last frame again"),
    task=f"two moving digits on {SIDE} x {SIDE} pixels, {FRAMES} frames after {FRAMES}, four blocks of width 48, "
    f"{STEPS} steps of 8 clips",
)
