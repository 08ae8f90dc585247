"""Counts computed blocks from outside: the same counter for every contender, whatever it skips and however.

A block's work is counted by the multiply-adds of its linear and convolution layers, in units of one full call of that
block. A cache that skips half of a block's layers counts half a block; attention scores are not counted, so what sparse
attention leaves out of a block comes from its trace instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ..errors import MeasurementError


class BlockMeter:
    """Counts the blocks of one pipeline.

    Args:
        denoisers: each denoiser with its blocks, in execution order.
    """

    def __init__(self, denoisers: Sequence[tuple[nn.Module, Sequence[nn.Module]]]) -> None:
        self.denoisers = [(denoiser, list(blocks)) for denoiser, blocks in denoisers]
        self.full: dict[int, list[float]] = {}
        """Multiply-adds of each block in one full call for one sample, by place of the denoiser."""

    @contextmanager
    def counting(self) -> Iterator[list[tuple[int, list[float]]]]:
        """While open, appends (place of the denoiser, multiply-adds of each of its blocks) for every denoiser call."""
        calls: list[tuple[int, list[float]]] = []
        handles = []
        for place, (denoiser, blocks) in enumerate(self.denoisers):

            def begin(module: nn.Module, args: Any, place: int = place, count: int = len(blocks)) -> None:
                calls.append((place, [0.0] * count))

            handles.append(denoiser.register_forward_pre_hook(begin))
            for number, block in enumerate(blocks):
                for layer in block.modules():
                    if isinstance(layer, (nn.Linear, nn.modules.conv._ConvNd)):
                        handles.append(layer.register_forward_hook(adder(calls, number)))
        try:
            yield calls
        finally:
            for handle in handles:
                handle.remove()

    def calibrate(self, calls: Sequence[tuple[int, list[float]]], samples: int) -> None:
        """Take a plain run of `samples` samples as the measure of a full block.

        Raises: MeasurementError where a block did nothing.
        """
        for place in {p for p, _ in calls}:
            rows = torch.tensor([work for p, work in calls if p == place], dtype=torch.float64)
            mean = (rows.mean(dim=0) / samples).tolist()
            if min(mean) <= 0:
                raise MeasurementError("a block of the plain pipeline computed nothing, so blocks cannot be counted")
            self.full[place] = mean

    def shares(self, calls: Sequence[tuple[int, list[float]]], samples: int) -> list[float]:
        """Blocks computed in each denoiser call, for one sample, as a share of all blocks.

        Raises: MeasurementError before `calibrate`.
        """
        result = []
        for place, work in calls:
            if place not in self.full:
                raise MeasurementError(
                    "the plain pipeline never called this denoiser; calibrate on all its steps first"
                )
            parts = [done / (whole * samples) for done, whole in zip(work, self.full[place], strict=True)]
            result.append(sum(parts) / len(parts))
        return result

    def blocks(self, calls: Sequence[tuple[int, list[float]]], samples: int) -> float:
        """Blocks computed over `calls`, for one sample."""
        shares = self.shares(calls, samples)
        return sum(share * len(self.denoisers[place][1]) for (place, _), share in zip(calls, shares, strict=True))


def adder(calls: list[tuple[int, list[float]]], number: int):
    """A forward hook that adds a layer's multiply-adds to block `number` of the current call."""

    def add(layer: nn.Module, args: Any, output: torch.Tensor) -> None:
        if not calls:
            return  # the layer is shared with a part outside the denoiser
        weight: Any = layer.weight
        calls[-1][1][number] += output.numel() * (weight.numel() / weight.shape[0])

    return add
