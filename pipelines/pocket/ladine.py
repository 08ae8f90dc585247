"""The `ladine` pocket: reads handwritten digits of 8 x 8 pixels, with probabilities. Trained in minutes, in stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from ...errors import InputError
from ..ladine import LadineDenoiser, LadineEncoder, LadineMapping, LadinePipeline, LadineScheduler
from ..ladine.calibration import fit_iota, fit_temperature
from ..ladine.chart import read_chart
from ..ladine.corruptions import CORRUPTIONS
from ..ladine.sampling import AVERAGES, draw_labels
from ..ladine.training import train_encoder, train_mapping, train_members
from .digits import TRAIN_COUNT, digit_strokes
from .training import FitSettings

FIT_COUNT = 1200
"""Digits before this index train everything; those from here to TRAIN_COUNT fit iota and temperature; the rest test."""
SIDE = 8
STEPS = 20
"""Reverse steps unless told otherwise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LadineRecipe:
    """All that decides how the pocket is trained."""

    encoder: FitSettings = FitSettings(
        steps=450, batch=48, rate=2e-3, muon_rate=4e-3, weight_decay=0.02, average=0.99, autocast=False, seed=41
    )
    mapping: FitSettings = FitSettings(steps=350, batch=64, rate=2e-3, weight_decay=0.05, autocast=False, seed=42)
    denoiser: FitSettings = FitSettings(steps=1200, batch=64, rate=2e-3, autocast=False, seed=43)
    members: int = 3
    blocks: int = 6
    width: int = 64
    times: int = 100
    pictures: int = 6144
    """Pictures that the members are trained on, mapped once."""

    def of_seed(self, seed: int) -> LadineRecipe:
        """The same recipe with other weights to begin with and other draws; seed 0 is this one."""
        runs = {name: getattr(self, name) for name in ("encoder", "mapping", "denoiser")}
        return replace(self, **{name: replace(run, seed=run.seed + 100 * seed) for name, run in runs.items()})


def draw_strokes(count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """`count` training digits, a little turned, scaled and shifted, (count, 1, 8, 8) in 0..1, and their classes."""
    strokes, classes = digit_strokes()
    chosen = torch.randint(0, FIT_COUNT, (count,), generator=generator)

    def about_zero(*shape: int) -> torch.Tensor:
        return 2 * torch.rand(count, *shape, generator=generator) - 1

    angle, scale = 0.1 * about_zero(), 1 + 0.08 * about_zero()
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(-1, 2, 2) * scale[:, None, None]
    affine = torch.cat([turn, 0.1 * about_zero(2, 1)], 2)
    grid = F.affine_grid(affine, [count, 1, SIDE, SIDE], align_corners=False)
    return F.grid_sample(strokes[chosen, None], grid, align_corners=False).clamp(0, 1), classes[chosen]


def held_out_digits(split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Digits that trained nothing, as they are, and their classes: "calibration" (300) or "test" (297)."""
    strokes, classes = digit_strokes()
    part = {"calibration": slice(FIT_COUNT, TRAIN_COUNT), "test": slice(TRAIN_COUNT, None)}[split]
    return strokes[part, None], classes[part]


def build_encoder(recipe: LadineRecipe) -> LadineEncoder:
    """The untrained encoder."""
    torch.manual_seed(recipe.encoder.seed)
    return LadineEncoder(sample_size=SIDE, width=recipe.width, num_layers=recipe.blocks)


def train_mixture(
    encoder: LadineEncoder, recipe: LadineRecipe, folder: Path, *, progress: bool = True
) -> tuple[LadinePipeline, dict[str, Any]]:
    """Stages 2 and 3 on a trained encoder, calibrated; the pipeline and what each stage took."""
    torch.manual_seed(recipe.mapping.seed)
    tokens = (SIDE // encoder.config["patch_size"]) ** 2 + 1
    mapping = LadineMapping(members=recipe.members, tokens=tokens, token_width=recipe.width)
    second = train_mapping(mapping, encoder, draw_strokes, recipe.mapping, folder, progress=progress)
    pictures, classes = draw_strokes(recipe.pictures, torch.Generator().manual_seed(recipe.denoiser.seed))
    scheduler = LadineScheduler(num_train_timesteps=recipe.times, prediction_type="sample")
    torch.manual_seed(recipe.denoiser.seed)
    denoiser = LadineDenoiser(members=recipe.members, sample_size=SIDE, num_train_timesteps=recipe.times)
    pipe = LadinePipeline(encoder, mapping, denoiser, scheduler)
    # Of pictures that they were trained on the mapping networks are sure, and members would learn to believe them; with
    # dropout their guesses err about as they do on others.
    mapping.train()
    with torch.no_grad():
        guessed = torch.cat([pipe.guess(part) for part in pictures.split(512)], 1)
    mapping.eval()
    third = train_members(denoiser, scheduler, pictures, classes, guessed, recipe.denoiser, folder, progress=progress)
    return calibrate(pipe), {"mapping": second, "denoiser": third}


def calibrate(pipe: LadinePipeline) -> LadinePipeline:
    """Fit iota and the encoder's temperature on the digits kept for it."""
    pictures, classes = held_out_digits("calibration")
    with torch.no_grad():
        labels = draw_labels(
            pipe.denoiser,
            pipe.scheduler,
            pictures,
            pipe.guess(pictures),
            samples=pipe.config["samples"],
            steps=STEPS,
            generator=torch.Generator().manual_seed(0),
        )
        temperature = fit_temperature(pipe.encoder(pictures), classes)
    iota = {average: round(fit_iota(labels, classes, average), 5) for average in AVERAGES}
    pipe.register_to_config(iota=iota, temperature=round(temperature, 5))
    return pipe


def train_ladine(
    folder: Path, recipe: LadineRecipe, *, device: str = "cpu", progress: bool = True
) -> tuple[LadinePipeline, dict[str, Any]]:
    """Train every stage, or continue where `folder` stands; the pipeline and the facts for its card."""
    encoder = build_encoder(recipe)
    first = train_encoder(encoder, draw_strokes, recipe.encoder, folder, progress=progress)
    pipe, rest = train_mixture(encoder, recipe, folder, progress=progress)
    calibration = {"iota": pipe.config["iota"][pipe.config["average"]], "temperature": pipe.config["temperature"]}
    return pipe, {"parts": {"encoder": first, **rest}, "calibrated_on_300_digits": calibration}


def digit_prompts(count: int, split: str) -> list[str]:
    """ "3 noise-50": a digit of the test, and what is done to it."""
    first, names = {"held_out": 0, "train": 3, "calibration": 7}[split], list(CORRUPTIONS)
    return [f"{(first + index) % 10} {names[(first + index) % len(names)]}" for index in range(count)]


def pictures_of(prompts: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """The pictures that prompts mean; the seed says which writer's digit, and draws what is done to it.

    Raises: InputError where a prompt is not a digit and a corruption.
    """
    tests, classes = held_out_digits("test")
    made = []
    for prompt, seed in zip(prompts, seeds, strict=True):
        digit, *names = prompt.split()
        if not (digit.isdecimal() and int(digit) < 10) or len(names) > 1:
            raise InputError(f"'{prompt}' is not a digit from 0 to 9 and what is done to it, such as \"3 noise-50\"")
        own = tests[classes == int(digit)]
        corruption = CORRUPTIONS[names[0] if names else "clean"]
        made.append(corruption(own[seed % len(own)][None], torch.Generator().manual_seed(seed)))
    return {"pictures": torch.cat(made)}


def check_charts(charts: Sequence[np.ndarray], prompts: Sequence[str]) -> list[dict[str, float]]:
    """For each chart whether the class it marks is the right one: {"digit": 1.0 or 0.0}."""
    return [
        {"digit": float(read_chart(chart, 10) == int(prompt.split()[0]))}
        for chart, prompt in zip(charts, prompts, strict=True)
    ]
