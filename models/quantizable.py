"""Quantizable transformers: heads that can do nothing need no outliers, so that 8 bits are enough.

Clipped softmax and a gate a head are settings of `layers.attention`; here is what measures outliers and what evaluates
a model in integers.

Source: Bondarenko, Nagel, Blankevoort, 2023, arXiv:2306.12929.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..kernels.feed_forward import gated_unit
from ..kernels.precision import widened
from ..kernels.quantised import quantise, quantised_linear
from .companion import MODELS, Companion
from .hybrid import HybridConfig, HybridLanguageModel
from .layers.attention import AttentionConfig
from .layers.feed_forward import GatedFeedForward
from .numbers import tokens_for


class QuantisedLinear(nn.Module):
    """A linear layer with weights in codes, and its inputs too."""

    def __init__(self, layer: nn.Linear, *, bits: int, block: int | None) -> None:
        super().__init__()
        self.bits, self.bias = bits, layer.bias
        self.weight = quantise(layer.weight.detach(), bits=bits, block=block)

    def forward(self, x: Tensor) -> Tensor:
        return quantised_linear(x, self.weight, self.bias, bits=self.bits)


class QuantisedFeedForward(nn.Module):
    """A gated feed-forward network of quantised linear layers."""

    def __init__(self, layer: GatedFeedForward, *, bits: int, block: int | None) -> None:
        super().__init__()
        self.activation = layer.activation
        self.up, self.gate, self.down = (
            QuantisedLinear(part, bits=bits, block=block) for part in (layer.up, layer.gate, layer.down)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.down(gated_unit(self.up(x), self.gate(x), self.activation))


def quantised(model: nn.Module, *, bits: int = 8, block: int | None = None) -> nn.Module:
    """A copy whose linear layers have weights and inputs of `bits` bits; embeddings and the head stay as they are.

    Args:
        block: numbers along the inputs that share a scale; one scale for a whole tensor where None, as in the paper.

    Raises: ConfigError: the model has no linear layer.
    """
    model = copy.deepcopy(model)
    places = [
        (parent, name, child)
        for parent in model.modules()
        if not isinstance(parent, GatedFeedForward)
        for name, child in parent.named_children()
        if isinstance(child, nn.Linear | GatedFeedForward)
    ]
    if not places:
        raise ConfigError(f"{type(model).__name__} has no linear layer to quantise")
    for parent, name, child in places:
        new = (
            QuantisedLinear(child, bits=bits, block=block)
            if isinstance(child, nn.Linear)
            else QuantisedFeedForward(child, bits=bits, block=block)
        )
        setattr(parent, name, new)
    return model


@torch.no_grad()
def outliers(model: HybridLanguageModel, tokens: Tensor) -> dict[str, float]:
    """What the blocks of a model put out: their largest number, and the kurtosis of the worst block (3 is normal)."""
    largest, kurtosis = [], []

    def look(_module: nn.Module, _inputs: object, output: tuple[Tensor, object]) -> None:
        x = widened(output[0])
        largest.append(float(x.abs().max()))
        centred = x.flatten(1) - x.flatten(1).mean(1, keepdim=True)
        kurtosis.append(float((centred.pow(4).mean(1) / centred.square().mean(1).square()).mean()))

    hooks = [block.register_forward_hook(look) for block in model.blocks]
    try:
        model(tokens)
    finally:
        for hook in hooks:
            hook.remove()
    return {"largest": max(largest), "kurtosis": max(kurtosis)}


QUANTIZABLE = MODELS.add(
    "quantizable",
    Companion(
        title="Quantizable Transformers: Removing Outliers by Helping Attention Heads Do Nothing",
        source="Bondarenko, Nagel, Blankevoort, 2023, arXiv:2306.12929",
        summary="attention that can put out nothing (clipped softmax, a gate a head), and evaluation in 8 bits",
        build=HybridLanguageModel,
        sizes={},
        config=HybridConfig,
        toy=HybridConfig(
            layer_types=("full", "full"),
            width=16,
            vocabulary=32,
            attention=AttentionConfig(heads=2, gate="head", clip=1.0),
            hidden=24,
        ),
        example=tokens_for,
        done=(
            "clipped softmax with gamma = -alpha / keys, and a gate a head from all features",
            "weights and inputs in integers, one scale a tensor or a block; kurtosis and largest number",
        ),
        left_out=(
            "BERT, OPT and ViT models of the paper",
            "gates from a head's own features by a small network",
            "ranges of inputs fixed by calibration: they are taken from the batch",
        ),
        claim="heads that can do nothing lower the outliers, and with them the loss that 8 bits cost",
        limits=("a large alpha leaves most weights without gradient at the beginning of training",),
    ),
)
