"""Spark Transformer: of each token, part of the features predicts which units and which keys are worth computing.

Source: You et al., 2025, arXiv:2506.06644.
Shapes: B batch, T tokens, D width, R features that predict, H hidden units or heads, W width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ..kernels.attention import attend
from ..kernels.sparsity import StatisticalSoftmax, statistical_top_k
from .companion import MODELS, Companion, Size, check_divides, check_sizes
from .layers.rotary import rotate
from .numbers import numbers


@dataclass(frozen=True, kw_only=True, slots=True)
class SparkConfig:
    """Sizes of a Spark feed-forward network and of Spark attention; the defaults are those of Gemma-2 2B."""

    width: int = 2304
    """D."""
    hidden: int = 13_824
    """H of the network; 3/2 of a gated network's has as many parameters."""
    predictor: int = 1024
    """R: features of a token that choose its units."""
    active: int = 1106
    """Units a token is to go through, about."""
    heads: int = 8
    """Of attention."""
    keys: int = 256
    """Keys a query is to see, about."""

    def __post_init__(self) -> None:
        check_sizes(self)
        check_divides("width over heads", self.width, self.heads)
        check_divides("width of a head over 4, for its halves and their rotary pairs", self.width // self.heads, 4)
        if not self.predictor < self.width:
            raise ConfigError(f"predictor is between 1 and the width {self.width} less 1, not {self.predictor}")


class SparkFeedForward(nn.Module):
    """V (gelu(top-k(K1 x[:R])) * (K2 x[R:])): the first features choose the units, the others say what they carry."""

    def __init__(self, config: SparkConfig) -> None:
        super().__init__()
        self.config = config
        self.choose = nn.Linear(config.predictor, config.hidden, bias=False)
        self.carry = nn.Linear(config.width - config.predictor, config.hidden, bias=False)
        self.out = nn.Linear(config.hidden, config.width, bias=False)

    def chosen(self, x: Tensor) -> Tensor:
        """(..., H): gelu of what is above the threshold, 0 for the others."""
        return F.gelu(statistical_top_k(self.choose(x[..., : self.config.predictor]), self.config.active))

    def forward(self, x: Tensor) -> Tensor:
        """Every unit computed, most times 0: for training and for many tokens."""
        return self.out(self.chosen(x) * self.carry(x[..., self.config.predictor :]))

    def gathered(self, x: Tensor) -> Tensor:
        """The same from the chosen units' weights alone, token by token: for decoding."""
        chosen, outs = self.chosen(x).flatten(0, -2), []
        for row, weights in zip(x.flatten(0, -2), chosen, strict=True):
            units = weights.nonzero()[:, 0]
            carried = self.carry.weight[units] @ row[self.config.predictor :]
            outs.append(self.out.weight[:, units] @ (weights[units] * carried))
        return torch.stack(outs).view(*x.shape[:-1], -1)

    def flops(self) -> float:
        """Of a token, with the chosen units' share of the second and third matrix."""
        config = self.config
        return 2 * (config.predictor * config.hidden + (2 * config.width - config.predictor) * config.active)


class SparkAttention(nn.Module):
    """(softmax over the chosen keys of K1 q[:R] * softplus(K2 q[R:])) V, causal, R half the width of a head."""

    def __init__(self, config: SparkConfig) -> None:
        super().__init__()
        self.config = config
        self.query, self.key, self.value, self.out = (
            nn.Linear(config.width, config.width, bias=False) for _ in range(4)
        )

    def forward(
        self, x_BTD: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The output for some more tokens, and keys and values of all so far."""
        start = 0 if state is None else state[0].shape[2]
        q, k, v = (
            part(x_BTD).unflatten(-1, (self.config.heads, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        half = q.shape[-1] // 2
        # Each half is turned by itself, so that either can be read without the other.
        q, k = (torch.cat([rotate(part, start) for part in both.split(half, -1)], -1) for both in (q, k))
        if state is not None:
            k, v = torch.cat([state[0], k], 2), torch.cat([state[1], v], 2)
        carried = F.softplus(q[..., half:] @ k[..., half:].mT * half**-0.5)
        choose = StatisticalSoftmax(k=self.config.keys)
        out = attend(
            q[..., :half],
            k[..., :half],
            v,
            causal=True,
            normaliser=lambda scores, allowed: choose(scores, allowed) * carried,
        )
        return self.out(out.transpose(1, 2).flatten(-2)), (k, v)


SPARK = MODELS.add(
    "spark",
    Companion(
        title="Spark Transformer: Reactivating Sparsity in FFN and Attention",
        source="You et al., 2025, arXiv:2506.06644",
        summary="layers in which a part of each token chooses few units and few keys, by a threshold from statistics",
        build=SparkFeedForward,
        sizes={
            "feed-forward of Gemma-2 2B": Size(
                config=SparkConfig(), parameters=63_700_992, said="as many as the gated network it replaces"
            )
        },
        config=SparkConfig,
        toy=SparkConfig(width=16, hidden=24, predictor=6, active=8, heads=2, keys=4),
        example=lambda config: (numbers((2, 5, config.width), dtype=torch.float32),),
        done=(
            "statistical top-k, and as a normaliser of attention",
            "the feed-forward network, for many tokens and for one with the chosen units' weights alone",
            "attention with chosen keys, decoding included",
        ),
        left_out=("a whole language model and its training", "kernels that skip what was not chosen"),
        claim="8 % of the units and 256 keys are enough: 2.5 times fewer FLOPs at about the same quality",
        limits=(
            "the threshold counts right for normal numbers; of heavy-tailed ones it keeps fewer than asked for",
            "weights of attention no longer sum to 1",
        ),
    ),
)
