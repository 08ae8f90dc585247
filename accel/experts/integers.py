"""Linear layers that hold 8-bit codes with a scale for every few weights: about half of bfloat16's memory.

What `outpace.kernels.quantised` makes of trained weights as they are; nothing is trained or calibrated.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...errors import UnsupportedModelError
from ...kernels.quantised import Quantised, quantise, quantised_linear
from ..families import find_family
from .fused import parameter_of
from .settings import Integers

LEAST_BLOCK = 16
"""Rows that cannot be cut into blocks of as many weights stay as they are: their scales would take what codes save."""


class IntegerLinear(nn.Module):
    """A linear layer whose weights are codes. It is multiplied by what these stand for, in the type of its input.

    Args:
        linear: the layer; what it holds is read, and its bias copied.
        block: weights along a row that share a scale; divides the row.
        inputs: bits of what goes into the product, too, which then is one of whole numbers; None leaves it as it is.
    """

    codes: Tensor
    """int8 (out, blocks, block)."""
    steps: Tensor
    """(out, blocks, 1): what a code of 1 stands for. Made in bfloat16, so that no other type loses any of it."""

    def __init__(self, linear: nn.Linear, *, block: int, inputs: int | None = None) -> None:
        super().__init__()
        self.in_features, self.out_features, self.inputs = linear.in_features, linear.out_features, inputs
        made = quantise(linear.weight.detach(), block=block, scale_type=torch.bfloat16)
        self.register_buffer("codes", made.codes)
        self.register_buffer("steps", made.scale.to(torch.bfloat16))
        self.bias = None if linear.bias is None else parameter_of(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        return quantised_linear(x, self.held(x.dtype), self.bias, bits=self.inputs)

    def held(self, dtype: torch.dtype) -> Quantised:
        """The codes with their scales in `dtype`."""
        scale, zero = self.steps.to(dtype), self.codes.new_zeros(1, 1)
        return Quantised(codes=self.codes, scale=scale, zero=zero, features=self.in_features, bits=8)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, block={self.codes.shape[-1]}"


def to_integers(transformer: nn.Module, settings: Integers) -> None:
    """Put codes in the place of the weights of every linear layer in the blocks of `transformer`.

    What is outside the blocks is small, sees noise level and text first, and stays as it is.

    Raises: UnsupportedModelError where no family covers the transformer, or no layer can be cut into blocks.
    """
    found = [
        (parent, name, child, block_of(child.in_features, settings.block))
        for _, block in find_family(transformer).blocks(transformer)
        for parent in block.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.Linear)
    ]
    fitting = [one for one in found if one[3] >= min(LEAST_BLOCK, settings.block)]
    if not fitting:
        raise UnsupportedModelError(
            f"{type(transformer).__name__} has no linear layer in its blocks whose rows divide into blocks of "
            f"{LEAST_BLOCK} weights or more; leave it as it is"
        )
    made: dict[int, IntegerLinear] = {}
    for parent, name, child, block in fitting:
        if id(child) not in made:  # a layer that blocks share stays shared
            made[id(child)] = IntegerLinear(child, block=block, inputs=settings.inputs).train(child.training)
        setattr(parent, name, made[id(child)])


def block_of(features: int, most: int) -> int:
    """Weights that share a scale: the most, up to `most`, that divide a row."""
    return next(block for block in range(min(features, most), 0, -1) if features % block == 0)


def find_integers(transformer: nn.Module) -> dict[str, IntegerLinear]:
    """The layers that hold codes, by path."""
    return {path: module for path, module in transformer.named_modules() if isinstance(module, IntegerLinear)}


def weight_bytes(transformer: nn.Module, dtype: torch.dtype | None = None) -> int:
    """What its weights, codes and scales take in memory; with `dtype`, if all that is not a code were of it."""
    codes = (part for layer in find_integers(transformer).values() for part in layer.buffers())
    held = [*transformer.parameters(), *codes]
    return sum(x.numel() * (dtype if dtype and x.is_floating_point() else x.dtype).itemsize for x in held)
