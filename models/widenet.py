"""WideNet: one attention and one mixture of experts for all depths of a vision transformer, norms of each depth's own.

Source: Xue et al., 2021, arXiv:2107.11817.
Shapes: B batch, T tokens, N = B T, D width, E experts, K experts a token, H hidden units of an expert.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..kernels.attention import attend
from ..kernels.moe import Experts, expert_ffn
from .companion import MODELS, Companion, Size, check_divides, check_sizes
from .numbers import picture_batch


@dataclass(frozen=True, kw_only=True, slots=True)
class WideNetConfig:
    """Sizes of a WideNet for pictures."""

    width: int = 768
    """D."""
    layers: int = 12
    """Times that the one block is gone through."""
    heads: int = 12
    """Of attention."""
    hidden: int = 4096
    """H."""
    experts: int = 4
    """E."""
    active: int = 2
    """K."""
    capacity: float = 1.2
    """An expert takes at most this times K N / E tokens of a call; later ones go through it not at all."""
    image: int = 224
    """Rows and columns of a picture."""
    patch: int = 16
    """Rows and columns of a token."""
    classes: int = 1000
    """Of the head."""
    own_norms: bool = True
    """Whether every depth has norms of its own (the paper's), or all share one pair (ALBERT's)."""

    def __post_init__(self) -> None:
        check_divides("width over heads", self.width, self.heads)
        check_divides("image over patch", self.image, self.patch)
        check_sizes(self)
        if not self.active <= self.experts:
            raise ConfigError(f"active of a WideNet is between 1 and its {self.experts} experts, not {self.active}")
        if not self.capacity > 0:
            raise ConfigError(f"capacity of a WideNet must be more than 0, not {self.capacity}")


class Routed(NamedTuple):
    """Where tokens go."""

    index_NK: Tensor
    """Experts of every token."""
    gates_NK: Tensor
    """Their probabilities, not renormalised; 0 where an expert was full."""
    balance: Tensor
    """The balance loss: 1 where all experts are used alike, more otherwise."""


def route(probabilities_NE: Tensor, active: int, capacity: float) -> Routed:
    """The K likeliest experts of every token, in the order of tokens until one is full; first choices go first."""
    tokens, experts = probabilities_NE.shape
    gates, index = probabilities_NE.topk(active)
    chosen = nn.functional.one_hot(index.T.flatten(), experts)  # all first choices, then all second ones
    place = (chosen.cumsum(0) * chosen).sum(1).view(active, tokens).T
    kept = place <= capacity * active * tokens / experts
    share = nn.functional.one_hot(index, experts).sum((0, 1)) / (tokens * active)
    return Routed(index, gates * kept, experts * (share * probabilities_NE.mean(0)).sum())


class SharedBlock(nn.Module):
    """What all depths share: attention, router, experts."""

    def __init__(self, config: WideNetConfig) -> None:
        super().__init__()
        width, experts, hidden = config.width, config.experts, config.hidden
        self.config = config
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.router = nn.Linear(width, experts, bias=False)
        bound = width**-0.5
        self.up_EDH = nn.Parameter(torch.empty(experts, width, hidden).uniform_(-bound, bound))
        self.up_bias_EH = nn.Parameter(torch.zeros(experts, hidden))
        self.down_EHO = nn.Parameter(torch.empty(experts, hidden, width).uniform_(-(hidden**-0.5), hidden**-0.5))
        self.down_bias_EO = nn.Parameter(torch.zeros(experts, width))

    def attend(self, x_BTD: Tensor) -> Tensor:
        """Attention between all tokens."""
        q, k, v = (
            part(x_BTD).unflatten(-1, (self.config.heads, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        return self.out(attend(q, k, v).transpose(1, 2).flatten(-2))

    def mix(self, x_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """sum over the chosen experts of p_e E_e(x), and the balance loss."""
        x_ND = x_BTD.flatten(0, 1)
        routed = route(self.router(x_ND).softmax(-1), self.config.active, self.config.capacity)
        experts = Experts(activation="gelu", up_EDH=self.up_EDH, down_EHO=self.down_EHO, up_bias_EH=self.up_bias_EH)
        out = expert_ffn(x_ND, experts, routed.index_NK, routed.gates_NK)
        out = out + (routed.gates_NK[..., None] * self.down_bias_EO[routed.index_NK]).sum(1)
        return out.view_as(x_BTD), routed.balance


class WideNet(nn.Module):
    """Class logits from pictures; `balance` holds the loss that keeps experts in use, of the last call.

    >>> model = WideNet(WideNetConfig(width=16, layers=2, heads=2, hidden=8, image=8, patch=4, classes=3))
    >>> model(torch.zeros(2, 3, 8, 8)).shape
    torch.Size([2, 3])
    """

    def __init__(self, config: WideNetConfig) -> None:
        super().__init__()
        width, tokens = config.width, (config.image // config.patch) ** 2
        self.config = config
        self.patches = nn.Conv2d(3, width, config.patch, config.patch)
        self.positions = nn.Parameter(torch.randn(tokens, width) * 0.02)
        self.block = SharedBlock(config)
        norms = config.layers if config.own_norms else 1
        self.norms1, self.norms2 = (nn.ModuleList(nn.LayerNorm(width) for _ in range(norms)) for _ in range(2))
        self.norm = nn.LayerNorm(width)
        self.representation, self.head = nn.Linear(width, width), nn.Linear(width, config.classes)
        self.balance = torch.zeros(())

    def forward(self, pictures: Tensor) -> Tensor:
        """(B, 3, rows, columns) -> (B, classes). Raises: ConfigError: pictures of another size."""
        side = self.config.image
        if pictures.ndim != 4 or tuple(pictures.shape[1:]) != (3, side, side):
            raise ConfigError(f"this WideNet takes pictures (batch, 3, {side}, {side}), not {tuple(pictures.shape)}")
        x, losses = self.patches(pictures).flatten(2).mT + self.positions, []
        for depth in range(self.config.layers):
            at = depth % len(self.norms1)
            x = x + self.block.attend(self.norms1[at](x))
            mixed, balance = self.block.mix(self.norms2[at](x))
            x = x + mixed
            losses.append(balance)
        self.balance = torch.stack(losses).sum()
        return self.head(self.representation(self.norm(x).mean(1)).tanh())


WIDENET = MODELS.add(
    "widenet",
    Companion(
        title="Go Wider Instead of Deeper",
        source="Xue, Shi, Wei, Lou, Liu, You, 2021, arXiv:2107.11817",
        summary="a vision transformer whose depths share one attention and one mixture of experts",
        build=WideNet,
        sizes={
            "B": Size(config=WideNetConfig(), parameters=29_689_832, said="29M"),
            "L": Size(config=WideNetConfig(width=1024, layers=24, heads=16), parameters=40_940_520, said="40M"),
            "H": Size(
                config=WideNetConfig(width=1280, layers=32, heads=16, hidden=5120), parameters=63_340_520, said="63M"
            ),
        },
        config=WideNetConfig,
        toy=WideNetConfig(width=16, layers=2, heads=2, hidden=8, image=8, patch=4, classes=5),
        example=lambda config: (picture_batch(config.image),),
        done=(
            "the model for pictures: shared attention, router and experts, norms of each depth's own",
            "routing with capacity, probabilities not renormalised, and the balance loss",
            "the ablations with shared norms",
        ),
        left_out=("the model for language (on ALBERT)", "noise of the router", "training on ImageNet-1K"),
        claim="with experts and norms of its own, a shared block is better than a shared dense one",
        limits=("the width of H is inferred from the number of parameters that the paper states",),
    ),
)
