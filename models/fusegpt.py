"""FuseGPT: the least important block of a trained model is left out, and its weights are grafted onto its neighbours.

Every linear layer of a neighbour becomes W + B A + (C D) * W', W' being the pruned block's, B and C 0 at first; what is
learnt is folded into plain layers, and the next block is chosen.

Source: Pei et al., 2024, arXiv:2411.14507.
Shapes: D inputs, O outputs, K rank, B batch, T tokens.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..errors import ConfigError
from .companion import MODELS, Companion, check_sizes
from .hybrid import HybridLanguageModel


@dataclass(frozen=True, kw_only=True, slots=True)
class FuseConfig:
    """How many blocks go, and how the others learn to do without; the defaults are the paper's."""

    share: float = 0.25
    """Of the blocks, rounded up, that are left out."""
    group: int = 8
    """Consecutive blocks that learn together, the pruned one among them."""
    rank: int = 128
    """K: the higher, the more can be learnt, and the more memory it takes."""
    epochs: int = 20
    """Times that every batch is learnt from, for each pruned block."""
    rate: float = 9.65e-6
    """Of norms and A, B."""
    graft_rate: float = 1e-3
    """Of C and D."""
    graft: bool = True
    """Whether the pruned block's weights are grafted; otherwise its neighbours learn without them, for ablations."""

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise ConfigError(f"share of FuseGPT must be in [0, 1), not {self.share}")
        check_sizes(self, zero=("epochs",))
        if self.group < 2:
            raise ConfigError(f"group of FuseGPT must be at least 2, not {self.group}")
        if not (self.rate > 0 and self.graft_rate > 0):
            raise ConfigError("rates of FuseGPT must be above 0")


class Graft(nn.Module):
    """W -> W + B A + (C D) * W', W' the pruned block's weight; the same W until B or C are learnt."""

    def __init__(self, weight_OD: Tensor, donor_OD: Tensor | None, rank: int) -> None:
        super().__init__()
        out, width = weight_OD.shape
        self.up_OK, self.down_KD = _pair(weight_OD, out, width, rank)
        self.graft_up_OK = self.graft_down_KD = None
        if donor_OD is not None:
            self.graft_up_OK, self.graft_down_KD = _pair(weight_OD, out, width, rank)
            self.register_buffer("donor_OD", donor_OD.detach().clone())

    def forward(self, weight_OD: Tensor) -> Tensor:
        weight = weight_OD + self.up_OK @ self.down_KD
        if self.graft_up_OK is None or self.graft_down_KD is None:
            return weight
        return weight + (self.graft_up_OK @ self.graft_down_KD) * self.get_buffer("donor_OD")


def _pair(like: Tensor, out: int, width: int, rank: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Zeros and random numbers, whose product is 0."""
    down = nn.init.kaiming_uniform_(like.new_empty(rank, width), math.sqrt(5))
    return nn.Parameter(like.new_zeros(out, rank)), nn.Parameter(down)


class Skip(nn.Module):
    """Stands for a block that is left out."""

    def forward(self, x_BTD: Tensor, state: object) -> tuple[Tensor, None]:
        return x_BTD, None


@contextmanager
def _without(model: HybridLanguageModel, place: int) -> Iterator[None]:
    block = model.blocks[place]
    model.blocks[place] = Skip()
    try:
        yield
    finally:
        model.blocks[place] = block


@torch.no_grad()
def importance(model: HybridLanguageModel, batches: Sequence[Tensor]) -> list[float]:
    """Of every block: 1 - the cosine between the last block's output with it and without it, mean over all tokens."""
    whole = [_through(model.blocks, model.tokens(tokens)) for tokens in batches]
    found = []
    for place in range(len(model.blocks)):
        with _without(model, place):
            cosines = [
                F.cosine_similarity(_through(model.blocks, model.tokens(tokens)), full, -1).mean()
                for tokens, full in zip(batches, whole, strict=True)
            ]
        found.append(1 - float(torch.stack(cosines).mean()))
    return found


def fuse(
    model: HybridLanguageModel, batches: Sequence[Tensor], config: FuseConfig
) -> tuple[HybridLanguageModel, list[int]]:
    """A copy with fewer blocks, and the places of those that went, each in the model as it then was.

    Args:
        batches: tokens (B, T) that importance is measured on and the others learn from.

    Raises: ConfigError: no batches, a share that would leave no block, or blocks whose gates have lower bounds.
    """
    count = math.ceil(len(model.blocks) * config.share)
    if model.lower_bounds is not None:
        raise ConfigError("FuseGPT takes models without lower bounds of forget gates, which are shares of all layers")
    if not batches or count >= len(model.blocks):
        raise ConfigError(f"FuseGPT needs batches, and leaves at least one of {len(model.blocks)} blocks")
    model, gone = copy.deepcopy(model), []
    for _ in range(count):
        worth = importance(model, batches)
        gone.append(worth.index(min(worth)))
        _fuse_one(model, gone[-1], batches, config)
    return model, gone


def _fuse_one(model: HybridLanguageModel, place: int, batches: Sequence[Tensor], config: FuseConfig) -> None:
    """Leave out one block, in place."""
    first = max(0, min(place - 1, len(model.blocks) - config.group))
    group = list(model.blocks[first : first + config.group])
    with torch.no_grad():
        inputs = [_through(model.blocks[:first], model.tokens(tokens)) for tokens in batches]
        targets = [_through(group, x) for x in inputs]
    pruned = dict(model.blocks[place].named_modules())
    kept = [block for block in group if block is not model.blocks[place]]
    del model.blocks[place]
    linears = [
        (layer, pruned.get(name))
        for block in kept
        for name, layer in block.named_modules()
        if isinstance(layer, nn.Linear)
    ]
    for layer, donor in linears:
        fits = config.graft and isinstance(donor, nn.Linear) and donor.weight.shape == layer.weight.shape
        weight = donor.weight if fits and isinstance(donor, nn.Linear) else None
        parametrize.register_parametrization(layer, "weight", Graft(layer.weight, weight, config.rank))
    _learn(kept, inputs, targets, config)
    for layer, _ in linears:
        parametrize.remove_parametrizations(layer, "weight")


def _learn(kept: list[nn.Module], inputs: list[Tensor], targets: list[Tensor], config: FuseConfig) -> None:
    """The group's output without the pruned block, as distributions over channels, nearer to what it was with it."""
    named = [(name, value) for block in kept for name, value in block.named_parameters()]
    grafts = [value for name, value in named if "graft_" in name]
    others = [value for name, value in named if "norm" in name or name.endswith((".up_OK", ".down_KD"))]
    rates = [{"params": others, "lr": config.rate}, {"params": grafts, "lr": config.graft_rate}]
    optimiser = torch.optim.Adam([one for one in rates if one["params"]], betas=(0.9, 0.95))
    steps = max(1, config.epochs * len(inputs))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(config.epochs):
        for x, target in zip(inputs, targets, strict=True):
            out = _through(kept, x).log_softmax(-1).flatten(0, -2)
            loss = F.kl_div(out, target.log_softmax(-1).flatten(0, -2), log_target=True, reduction="batchmean")
            gradients = torch.autograd.grad(loss, [*others, *grafts])
            for value, gradient in zip([*others, *grafts], gradients, strict=True):
                value.grad = gradient
            optimiser.step()
            schedule.step()


def _through(blocks: Sequence[nn.Module] | nn.ModuleList, x_BTD: Tensor) -> Tensor:
    for block in blocks:
        x_BTD, _ = block(x_BTD, None)
    return x_BTD


FUSEGPT = MODELS.add(
    "fusegpt",
    Companion(
        title="FuseGPT: Learnable Layers Fusion of Generative Pre-trained Transformers",
        source="Pei et al., 2024, arXiv:2411.14507",
        summary="fewer blocks of a trained model, the weights of those that went grafted onto their neighbours",
        use="outpace.models.fusegpt.fuse(model, batches, FuseConfig()) changes a trained model",
        done=(
            "importance of blocks by what their absence does to the last one's output",
            "grafts and low-rank changes learnt group by group and folded into plain layers, block after block",
        ),
        left_out=("models other than the hybrid one here, and biases: its layers have none",),
        claim="grafting the pruned block onto its neighbours loses less than learning without it",
        limits=(
            "distributions are over channels; the published code takes them over the batch",
            "the teacher of each step is the model as it then is, so that errors add up, as in the paper",
        ),
    ),
)
