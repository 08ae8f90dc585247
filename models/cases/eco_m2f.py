"""What is remembered of ECO-M2F."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from ..eco_m2f import ExitData, encoder_of, exit_data, exit_loss, fit_gate, semantic_map
from ..numbers import numbers, picture_batch, whole_numbers
from ..remember import case, filled_model


@case("eco_m2f", "masks and classes at every exit and at the gate's", near=1e-6)
@torch.no_grad()
def exits() -> list[object]:
    model: Any = filled_model("eco_m2f")
    encoder, x, made = encoder_of(model), picture_batch(64).double(), []
    for exit in (*encoder.exits, None):
        encoder.exit = exit
        out = model(pixel_values=x)
        made += [out.class_queries_logits, out.masks_queries_logits, encoder.seen_BW, encoder.taken_B.double()]
    return [*made, semantic_map(model(pixel_values=x), (20, 24)).double()]


@case("eco_m2f", "what is gathered for the gate, what it learns, what is best, a map of classes", near=1e-5)
def learning() -> list[object]:
    model: Any = filled_model("eco_m2f")
    x = picture_batch(64).double()
    with torch.no_grad():
        data = exit_data(model, [(x, None)], lambda out, _: out.class_queries_logits.softmax(-1)[:, 0, 0].tolist())
    seen, quality = numbers((12, 64)), numbers((12, 3), 1) / 2 + 0.5
    told = ExitData(seen_PW=seen, quality_PE=quality)
    fit_gate(encoder_of(model), told, price=0.1, steps=5, rate=1e-2, batch=4, seed=3)
    gate = encoder_of(model).gate
    output = SimpleNamespace(masks_queries_logits=5 * numbers((2, 6, 5, 4)), class_queries_logits=numbers((2, 6, 4), 1))
    return [
        data, told.best(0.0).double(), told.best(0.3).double(), gate.weight, gate.bias,
        semantic_map(output, (9, 8)).double(),
    ]  # fmt: skip


@case("eco_m2f", "the loss of an exit", near=1e-3)
def loss() -> list[float]:
    model: Any = filled_model("eco_m2f").float()
    found, x = [], picture_batch(64)
    masks = [(whole_numbers((1, 64, 64), 2, seed) > 0).float() for seed in range(2)]
    for exit in (2, 4):
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # places of a mask that are looked at are drawn
            classes = [torch.tensor([1]), torch.tensor([0])]
            found.append(float(exit_loss(model, exit, pixel_values=x, mask_labels=masks, class_labels=classes)))
    return found
