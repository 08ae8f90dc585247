"""GTrXL: a Transformer-XL whose residual sums are gates, open to the past at the start, so that it trains by rewards.

Source: Parisotto et al., 2019, arXiv:1910.06764, section 3.
Shapes: B batch, T steps of a segment, M keys (those remembered, then the segment), D width, H heads, W width of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ..kernels.attention import attend
from ..registry import Registry
from .companion import MODELS, Companion, Size, check_sizes
from .numbers import numbers

NORMS = ("before", "after")
RESIDUAL_GATES: Registry[Callable[[int, float], nn.Module]] = Registry("residual gate")
"""Name -> (width, bias) -> a module that joins the stream x and a sub-layer's output y."""


def linear(width: int) -> nn.Linear:
    """A square matrix without a bias."""
    return nn.Linear(width, width, bias=False)


@RESIDUAL_GATES.register("add")
class Add(nn.Module):
    """x + y: the residual sum that the others stand in for."""

    def __init__(self, width: int, bias: float) -> None:
        super().__init__()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


@RESIDUAL_GATES.register("input")
class InputGate(nn.Module):
    """sigmoid(W x) x + y."""

    def __init__(self, width: int, bias: float) -> None:
        super().__init__()
        self.gate = linear(width)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.gate(x).sigmoid() * x + y


class BiasedGate(nn.Module):
    """A matrix of the gate and what is taken from its logits, so that the layer begins near the identity."""

    def __init__(self, width: int, bias: float) -> None:
        super().__init__()
        self.gate, self.bias_D = linear(width), nn.Parameter(torch.full((width,), bias))


@RESIDUAL_GATES.register("output")
class OutputGate(BiasedGate):
    """x + sigmoid(W x - b) y."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + (self.gate(x) - self.bias_D).sigmoid() * y


@RESIDUAL_GATES.register("highway")
class HighwayGate(BiasedGate):
    """s x + (1 - s) y with s = sigmoid(W x + b)."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.lerp(y, x, (self.gate(x) + self.bias_D).sigmoid())


@RESIDUAL_GATES.register("sigtanh")
class SigmoidTanhGate(BiasedGate):
    """x + sigmoid(W y - b) tanh(U y)."""

    def __init__(self, width: int, bias: float) -> None:
        super().__init__(width, bias)
        self.content = linear(width)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + (self.gate(y) - self.bias_D).sigmoid() * self.content(y).tanh()


@RESIDUAL_GATES.register("gru")
class RecurrentUnitGate(nn.Module):
    """A gated recurrent unit whose state is the stream and whose input is the sub-layer's output."""

    def __init__(self, width: int, bias: float) -> None:
        super().__init__()
        self.from_y = nn.Linear(width, 3 * width, bias=False)
        self.from_x = nn.Linear(width, 2 * width, bias=False)
        self.from_reset = linear(width)
        self.bias_D = nn.Parameter(torch.full((width,), bias))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        reset_y, update_y, new_y = self.from_y(y).chunk(3, -1)
        reset_x, update_x = self.from_x(x).chunk(2, -1)
        update = (update_y + update_x - self.bias_D).sigmoid()
        new = (new_y + self.from_reset((reset_y + reset_x).sigmoid() * x)).tanh()
        return torch.lerp(x, new, update)


@dataclass(frozen=True, kw_only=True, slots=True)
class GtrxlConfig:
    """Sizes of a GTrXL; the defaults are the paper's."""

    width: int = 256
    """D."""
    layers: int = 12
    """Blocks, each attention and a feed-forward network."""
    heads: int = 8
    """H."""
    head_width: int = 64
    """W."""
    hidden: int = 1024
    """Units of the feed-forward network."""
    memory: int = 512
    """Inputs of every block that are remembered from the segments before; 0 forgets them."""
    gate: str = "gru"
    """What joins stream and sub-layer, a name in `RESIDUAL_GATES`."""
    gate_bias: float = 2.0
    """How near a gate is to the identity at the start: the higher, the nearer, and the slower the first steps."""
    norm: str = "before"
    """"before" sub-layers, with a ReLU behind them (the paper's), or "after" the sum, as in Transformer-XL."""

    def __post_init__(self) -> None:
        check_sizes(self, zero=("memory",), signed=("gate_bias",))
        if self.width % 2:
            raise ConfigError(f"width of a GTrXL must be even for its sines and cosines, not {self.width}")
        if self.norm not in NORMS:
            raise ConfigError(f"norm of a GTrXL must be one of {', '.join(NORMS)}, not '{self.norm}'")
        _ = RESIDUAL_GATES[self.gate]


def sinusoids(count: int, width: int, like: Tensor) -> Tensor:
    """(count, width): an embedding of every distance, 0 the first."""
    frequencies = 10_000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.arange(count, dtype=torch.float64)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], -1).to(like)


def by_distance(scores_BHTM: Tensor) -> Tensor:
    """From scores by distance (0 the newest) to scores by key; keys after their query get some other key's.

    Queries are the last T of the M keys' positions: query i is M - T + i - j away from key j.
    """
    T, M = scores_BHTM.shape[-2:]
    places = torch.arange(M, device=scores_BHTM.device)
    distance = (places[M - T :, None] - places).clamp(min=0)
    return scores_BHTM.gather(-1, distance.expand_as(scores_BHTM))


class RelativeAttention(nn.Module):
    """Attention of a segment to what is remembered and to itself, by content and by distance."""

    def __init__(self, config: GtrxlConfig) -> None:
        super().__init__()
        inner = config.heads * config.head_width
        self.heads = config.heads
        self.query, self.key, self.value, self.distance = (nn.Linear(config.width, inner, bias=False) for _ in range(4))
        self.out = nn.Linear(inner, config.width, bias=False)

    def forward(self, x_BMD: Tensor, count: int, content_HW: Tensor, place_HW: Tensor) -> Tensor:
        """The output (B, T, D) of the last `count` of x, given the model's two biases of queries."""
        q, k, v, r = (
            part.unflatten(-1, (self.heads, -1)).transpose(-2, -3)
            for part in (
                self.query(x_BMD[:, -count:]),
                self.key(x_BMD),
                self.value(x_BMD),
                self.distance(sinusoids(x_BMD.shape[1], x_BMD.shape[2], x_BMD)),
            )
        )
        places = by_distance((q + place_HW[:, None]) @ r.mT) * q.shape[-1] ** -0.5
        out = attend(q + content_HW[:, None], k, v, causal=True, bias=places)
        return self.out(out.transpose(1, 2).flatten(-2))


class GtrxlBlock(nn.Module):
    """Attention and a feed-forward network, each joined to the stream by its own gate."""

    def __init__(self, config: GtrxlConfig) -> None:
        super().__init__()
        self.before = config.norm == "before"
        self.norm1, self.norm2 = nn.LayerNorm(config.width), nn.LayerNorm(config.width)
        self.attention = RelativeAttention(config)
        self.feed_forward = nn.Sequential(
            nn.Linear(config.width, config.hidden), nn.ReLU(), nn.Linear(config.hidden, config.width)
        )
        self.gate1, self.gate2 = (RESIDUAL_GATES[config.gate](config.width, config.gate_bias) for _ in range(2))

    def forward(self, x_BTD: Tensor, remembered: Tensor, content_HW: Tensor, place_HW: Tensor) -> Tensor:
        seen, count = torch.cat([remembered, x_BTD], 1), x_BTD.shape[1]
        if self.before:
            x = self.gate1(x_BTD, F.relu(self.attention(self.norm1(seen), count, content_HW, place_HW)))
            return self.gate2(x, F.relu(self.feed_forward(self.norm2(x))))
        x = self.norm1(self.gate1(x_BTD, self.attention(seen, count, content_HW, place_HW)))
        return self.norm2(self.gate2(x, self.feed_forward(x)))


class Gtrxl(nn.Module):
    """Features of every step from features of every step, with a memory of the segments before.

    >>> model = Gtrxl(GtrxlConfig(width=8, layers=2, heads=2, head_width=4, hidden=16, memory=5))
    >>> features, memory = model.step(torch.randn(3, 4, 8), None)
    >>> features.shape, memory[0].shape
    (torch.Size([3, 4, 8]), torch.Size([3, 4, 8]))
    """

    def __init__(self, config: GtrxlConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(GtrxlBlock(config) for _ in range(config.layers))
        self.content_HW, self.place_HW = (nn.Parameter(torch.zeros(config.heads, config.head_width)) for _ in range(2))

    def forward(self, x_BTD: Tensor) -> Tensor:
        """(B, T, D), nothing remembered."""
        return self.step(x_BTD, None)[0]

    def step(self, x_BTD: Tensor, memory: tuple[Tensor, ...] | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The features of a segment after those that made `memory`, and the memory after it.

        No gradient goes into a memory.

        Raises: ConfigError: features of another width.
        """
        if x_BTD.ndim != 3 or x_BTD.shape[-1] != self.config.width:
            raise ConfigError(f"this GTrXL takes (batch, steps, {self.config.width}), not {tuple(x_BTD.shape)}")
        x, kept = x_BTD, []
        for i, block in enumerate(self.blocks):
            remembered = x[:, :0].detach() if memory is None else memory[i]
            seen = torch.cat([remembered, x.detach()], 1)
            kept.append(seen[:, max(0, seen.shape[1] - self.config.memory) :])
            x = block(x, remembered, self.content_HW, self.place_HW)
        return x, tuple(kept)


GTRXL = MODELS.add(
    "gtrxl",
    Companion(
        title="Stabilizing Transformers for Reinforcement Learning",
        source="Parisotto et al., 2019, arXiv:1910.06764",
        summary="a Transformer-XL with gates in place of residual sums, for agents that must remember",
        build=Gtrxl,
        sizes={"paper": Size(config=GtrxlConfig(), parameters=23_627_776, said="not said")},
        config=GtrxlConfig,
        toy=GtrxlConfig(width=8, layers=2, heads=2, head_width=4, hidden=16, memory=5),
        example=lambda config: (numbers((2, 6, config.width), dtype=torch.float32),),
        done=(
            "norms before the sub-layers and a ReLU behind them (TrXL-I), norms after the sum (TrXL)",
            "all gates of the paper: GRU, output, highway, sigmoid-tanh, input, and the plain sum",
            "relative positions and a memory of earlier segments, without gradient",
        ),
        left_out=("V-MPO, DMLab-30 and the encoder of pictures: a model of features only",),
        claim="with GRU gates, training by rewards holds at learning rates at which Transformer-XL fails",
        limits=(
            "the memory begins empty; the paper's begins with zeros, which are attended to",
            "units of the feed-forward network are ours (4 D): no number is given for them",
        ),
    ),
)
