"""The claim on curves of activations in small: a language model's layers, watched while it learns Python."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable

import torch
import torch.nn.functional as F

from ..hybrid import AttentionConfig, HybridConfig, HybridLanguageModel
from ..massive import FORMS, fit_form, ratios
from .data import BYTES, python_source, windows
from .fit import fit
from .trial import Trial

STEPS, PROBES, LAYERS, LENGTH = 400, 40, 4, 64


def probe_steps(steps: int) -> list[int]:
    """About `PROBES` steps, the later the further apart."""
    return sorted({round((steps + 1) ** (i / (PROBES - 1))) - 1 for i in range(PROBES)})


@functools.cache
def watched(seed: int, steps: int = STEPS) -> tuple[list[int], list[list[float]]]:
    """(steps, the ratio behind each layer at each of them) of one training, on the same 10 held-out pieces."""
    torch.manual_seed(seed)
    config = HybridConfig(
        layer_types=("full",) * LAYERS, width=64, hidden=128, vocabulary=BYTES, attention=AttentionConfig(heads=4)
    )
    model, generator = HybridLanguageModel(config), torch.Generator().manual_seed(seed)
    train, held = python_source()
    shown, probes = windows(held, 10, LENGTH, torch.Generator().manual_seed(0))[:, :-1], set(probe_steps(steps))
    found: list[list[float]] = []

    def loss(step: int) -> torch.Tensor:
        if step in probes:
            with torch.no_grad(), ratios(model.blocks) as seen:
                model(shown)
            found.append(seen)
        pieces = windows(train, 8, LENGTH, generator)
        return F.cross_entropy(model(pieces[:, :-1]).flatten(0, 1), pieces[:, 1:].flatten())

    fit(model, loss, steps=steps + 1)
    return sorted(probes), [list(layer) for layer in zip(*found, strict=True)]


def arm(form: str) -> Callable[[int], float]:
    """The mean criterion of a form over layers."""

    def run(seed: int) -> float:
        steps, layers = watched(seed)
        return statistics.mean(fit_form(steps, values, form).aic for values in layers)

    return run


TRIAL = Trial(
    claim="a logarithm with decay fits the ratio of largest to median activation better than step responses do",
    measure="Akaike's criterion, mean over layers",
    higher_is_better=False,
    arms={form: arm(form) for form in FORMS},
    against=("first-order step", "second-order step"),
    task=f"{LAYERS} layers of width 64, {STEPS} steps of 8 x {LENGTH} bytes of Python, watched at most {PROBES} times",
)
