"""How long a call takes on this machine before and after a conversion, tried on twins with random weights.

FLOPs do not tell: routing a small layer token by token takes longer than the dense layer. Weights do not change what a
dense layer costs, and hardly what a routed one does, so that twins of small models tell it in a moment.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...errors import ConfigError
from .convert import convert
from .count import parameter_count
from .settings import Conversion, Experts

LAYOUTS = ("1S12E2A", "0S16E6A4W")
"""What `choose_layout` chooses among, both with 0.375 of the matrices: the paper's where a call cannot be tried."""
REPETITIONS = 9
"""Pairs of calls; the ratio is their median."""
MOST_PARAMETERS = 100_000_000
MOST_FLOPS = 20_000_000_000
"""Of a dense call; larger ones are not tried: they take seconds and the memory of the whole model."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tried:
    """Processor seconds of one call for one sample, dense and converted, on the threads that torch has."""

    dense_seconds: float
    seconds: float


def try_call(model: Any, conversion: Conversion, **size: int | None) -> Tried | None:
    """Time one call of random twins of `model` in turns on the CPU; None where it is too large to try.

    Args:
        model, size: as those of `count`.
        conversion: what is done to the second twin.

    Raises: as `count`.
    """
    from ..estimate.recording import record_call
    from ..estimate.sample import sample_of

    sample = sample_of(model, **size)
    flops = record_call(sample.transformer, sample.inputs).flops
    if flops > MOST_FLOPS or parameter_count(sample.transformer) > MOST_PARAMETERS:
        return None
    config: Any = sample.transformer.config
    settings = {key: value for key, value in config.items() if not key.startswith("_")}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        dense = type(sample.transformer)(**settings).eval()
        inputs = {name: _filled(value) for name, value in sample.inputs.items()}
        converted = convert(dense, conversion)
        dense_times, ratios = [], []
        for turn in range(REPETITIONS + 1):
            before, after = (_seconds(twin, inputs) for twin in (dense, converted))
            if turn:  # the first of each warms up
                dense_times.append(before)
                ratios.append(after / max(before, 1e-9))
    seconds = statistics.median(dense_times)
    return Tried(dense_seconds=seconds, seconds=seconds * statistics.median(ratios))


def choose_layout(model: Any, **size: int | None) -> str:
    """The layout of LAYOUTS that runs fastest here; the first where a call is too large to try.

    Raises: as `count`; ConfigError where the hidden units of `model` divide into none of them.
    """
    seconds: dict[str, float] = {}
    refused: ConfigError | None = None
    for layout in LAYOUTS:
        try:
            tried = try_call(model, Conversion(experts=Experts(layout=layout)), **size)
        except ConfigError as error:
            refused = error
            continue
        if tried is None:
            return LAYOUTS[0]
        seconds[layout] = tried.seconds / tried.dense_seconds
    if not seconds and refused is not None:
        raise refused
    return min(seconds, key=lambda layout: seconds[layout])


def _seconds(model: Any, inputs: Mapping[str, Any]) -> float:
    start = time.process_time()
    model(**inputs, return_dict=False)
    return time.process_time() - start


def _filled(value: Any) -> Any:
    """Some values in the place of none: noise, and masks that hide nothing."""
    if not isinstance(value, Tensor):
        return type(value)(_filled(one) for one in value) if isinstance(value, (list, tuple)) else value
    if value.is_floating_point():
        return torch.rand(value.shape, dtype=value.dtype)
    return torch.ones(value.shape, dtype=value.dtype)
