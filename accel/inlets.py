"""Modules that work for the blocks alone are left out of calls in which no block runs: embeddings of patches and text,
rotary tables, what makes a block's modulation of the timestep.

Nobody reads what they give in such a call, so that only its shape matters, and NaN stands in for it. A module that a
family names by mistake therefore shows at once, as a picture of NaN, and `check_family` finds it.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .denoiser import Denoiser, Interception
from .families.family import modules_at

Made = dict[tuple[str, int], "Like | None"]
"""What modules gave in one call, by their paths and by how often each was called before in it; None where nothing can
stand in for it."""


@dataclass(frozen=True, slots=True)
class Like:
    """How a module's result is laid out: a tensor, or a tuple of tensors and Nones."""

    tensors: tuple[Layout | None, ...]
    tuple: bool

    @staticmethod
    def of(output: Any) -> Like | None:
        """That of a result; None where it holds anything else than strided tensors of floating or complex numbers."""
        parts = output if isinstance(output, tuple) else (output,)
        if type(output) not in (Tensor, tuple) or not all(part is None or fits(part) for part in parts):
            return None
        return Like(tuple(None if part is None else Layout.of(part) for part in parts), isinstance(output, tuple))

    def stand_in(self) -> Any:
        """A result laid out so, all of it NaN."""
        made = tuple(None if layout is None else layout.stand_in() for layout in self.tensors)
        return made if self.tuple else made[0]


@dataclass(frozen=True, slots=True)
class Layout:
    """How a tensor lies in memory."""

    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @staticmethod
    def of(tensor: Tensor) -> Layout:
        return Layout(tensor.shape, tensor.stride(), tensor.dtype, tensor.device)

    def stand_in(self) -> Tensor:
        """A tensor laid out so, all of it NaN."""
        span = 1 + sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))
        numbers = torch.full((span if self.shape.numel() else 0,), math.nan, dtype=self.dtype, device=self.device)
        return numbers.as_strided(self.shape, self.stride)


def fits(part: Any) -> bool:
    """Whether NaN can stand in for a part of a result."""
    plain = type(part) is Tensor and part.layout is torch.strided
    return plain and (part.is_floating_point() or part.is_complex())


class Inlets:
    """The modules of one transformer whose results only its blocks read, as its family names them."""

    def __init__(self, denoiser: Denoiser) -> None:
        self._denoiser = denoiser
        family, transformer = denoiser.family, denoiser.transformer
        # Blocks that have to run at every call are none of these, and read what the others do.
        runs = any(stack.unless is not None and stack.unless(transformer) for stack in family.stacks)
        found = {} if runs else modules_at(transformer, family.for_blocks)
        self._sites = [Interception(module, partial(self._around, path)) for path, module in found.items()]
        self._made: Made | None = None
        self._calls: Counter[str] = Counter()

    def begin(self, made: Made | None) -> None:
        """A call begins: what its modules give is noted in `made`, or, where no block runs, stood in for by that."""
        self._made = made
        self._calls.clear()

    def end(self) -> None:
        """The call is over; every other call of a module is made."""
        self._made = None

    def remove(self) -> None:
        """Leave the modules as they were found."""
        for site in self._sites:
            site.remove()

    def _around(self, path: str, site: Interception, *args: Any, **kwargs: Any) -> Any:
        """One call of a module."""
        if torch.compiler.is_compiling() or self._made is None:
            return site.proceed(*args, **kwargs)
        place = (path, self._calls[path])
        self._calls[path] += 1
        if self._denoiser.idle:
            like = self._made.get(place)
            return site.proceed(*args, **kwargs) if like is None or is_watched(site.module) else like.stand_in()
        output = site.proceed(*args, **kwargs)
        self._made[place] = Like.of(output)
        return output


def is_watched(module: nn.Module) -> bool:
    """True where somebody else follows the calls of a module or of what is in it, or it draws at random in training."""
    for part in module.modules():
        hooks = getattr(getattr(part, "_diffusers_hook", None), "hooks", None)
        if part.training or part._forward_hooks or part._forward_pre_hooks or hooks:
            return True
    return False
