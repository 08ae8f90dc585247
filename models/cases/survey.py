"""What is remembered of the cost model."""

from __future__ import annotations

import math
from dataclasses import fields

from ..remember import case
from ..survey import ARCHITECTURES, MACHINES, TECHNIQUES, Cost, cost, least_seconds

STREAMS = {"tokens": 300, "patches": 299, "image": 256, "text": 44}


def told(one: Cost) -> list[float]:
    """As logarithms, since they are of different sizes."""
    return [math.log1p(getattr(one, field.name)) for field in fields(one)]


@case("survey", "every architecture: reading, decoding and in batches; bounds of every machine", near=1e-10)
def architectures() -> list[object]:
    made: list[object] = []
    for _, make in ARCHITECTURES.items():
        costs = [cost(make(), STREAMS), cost(make(), STREAMS, cached=2047), cost(make(), STREAMS, batch=3)]
        bounds = [least_seconds(one, machine) for one in costs for machine in MACHINES.values()]
        made += [[number for one in costs for number in told(one)], [math.log(seconds) for seconds, _ in bounds]]
        made += [" ".join(by for _, by in bounds)]
    return made


@case("survey", "every technique on every architecture", near=1e-10)
def techniques() -> list[list[float]]:
    return [
        [
            number
            for _, make in ARCHITECTURES.items()
            for cached in (0, 1500)
            for number in told(cost(technique.change(make()), STREAMS, cached=cached, batch=2))
        ]
        for _, technique in TECHNIQUES.items()
    ]
