"""What is remembered of GCAB."""

from __future__ import annotations

import torch
from torch import Tensor

from ..gcab import learn_task
from ..numbers import numbers, whole_numbers
from ..remember import case, example_of, filled_model


def batches(seed: int) -> list[tuple[Tensor, Tensor]]:
    return [(numbers((4, 3, 8, 8), seed + i), whole_numbers((4,), 2, seed + i)) for i in range(2)]


@case("gcab", "logits: the toy, without gates, without the cascade; a task read at a scale; losses")
@torch.no_grad()
def forms() -> list[object]:
    made: list[object] = []
    for changes in ({"channels": 3}, {"gated": False, "channels": 3}, {"cascade": False, "channels": 3}):
        model = filled_model("gcab", **changes)
        model.gates.width.copy_(numbers(model.gates.width.shape, 5))  # some closed
        model.gates.hidden.copy_(numbers(model.gates.hidden.shape, 6))
        x, classes = batches(1)[0]
        features = model.features(x)
        teacher = filled_model("gcab", channels=3, heads=2)
        made += [
            model(x), features, model.read(features, 0, 3.0), model.loss(x, classes, 2.0, None),
            model.loss(x, classes, 2.0, teacher), model.gates(1, 0.5), model.gates.used_before(2),
            model.gates.share_of_free(2, 1.5), model.gates.used_before(0),
            model.gates.share_of_free(0, 1.5), [model.gates.scale_at(share) for share in (0.0, 0.3, 1.0)],
        ]  # fmt: skip
    return made


@case("gcab", "positions where heads begin")
def beginning() -> list[Tensor]:
    from ..gcab import PositionalAttention

    with torch.random.fork_rng(devices=[]):
        parts = [PositionalAttention(16, heads, 3) for heads in (4, 9, 16)]
    return [value for part in parts for value in (part.offsets_NN3, part.position.weight, part.value.weight)]


@case("gcab", "two tasks learned, one after the other", near=1e-5)
def learned() -> list[object]:
    model, losses = filled_model("gcab", channels=3, classes=(), tasks=3), []
    for task in range(2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(task)
            learn_task(model, 2, [batches(2 * task)], rate=1e-3, watch=lambda loss: losses.append(float(loss)))
    model.eval()
    gates = model.gates
    with torch.no_grad():
        out = model(*example_of("gcab", model))
    return [losses, out, gates.width, gates.hidden, [float(p.requires_grad) for p in model.parameters()]]
