"""A language model of any pattern of linear and full attention, given layer by layer.

Source: Wang et al., 2025, arXiv:2507.06457, "A Systematic Analysis of Hybrid Linear Attention".
Shapes: B batch, T tokens, D width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from .companion import MODELS, Companion, Size, check_sizes
from .layers.attention import AttentionConfig, SoftmaxAttention
from .layers.feed_forward import GatedFeedForward
from .layers.generation import Generates
from .layers.mixers import MIXERS, mixer
from .numbers import tokens_for

FULL = "full"
BOUNDED = ("hgrn", "hgrn2")
"""Mixers whose forget gates may have lower bounds."""


def pattern(layers: int, linear: str, ratio: int) -> tuple[str, ...]:
    """`ratio` linear layers, then a full one, and so on; what is left over at the end is linear.

    >>> pattern(5, "gla", 3)
    ('gla', 'gla', 'gla', 'full', 'gla')
    """
    if layers < 1 or ratio < 0:
        raise ConfigError(f"a pattern takes at least 1 layer and a ratio of at least 0, not {layers} and {ratio}")
    return tuple(FULL if (i + 1) % (ratio + 1) == 0 else linear for i in range(layers))


@dataclass(frozen=True, kw_only=True, slots=True)
class HybridConfig:
    """Sizes of a hybrid language model."""

    layer_types: tuple[str, ...]
    """What each layer is: "full", or a name in `MIXERS`."""
    width: int = 1024
    """D."""
    heads: int = 4
    """Of the linear layers."""
    vocabulary: int = 32_000
    """Tokens it knows."""
    attention: AttentionConfig = field(default_factory=lambda: AttentionConfig(heads=8))
    """Of the full layers."""
    hidden: int | None = None
    """Units of the feed-forward network; 8 D / 3 rounded up to a multiple of 256 where None."""
    tied: bool = True
    """Whether the head is the embedding; models of flash-linear-attention have one of their own."""
    norm_eps: float = 1e-5
    """What norms add to a mean square; flash-linear-attention takes 1e-6."""
    lower_bounds: bool = False
    """Whether forget gates of HGRN and HGRN-2 have lower bounds, which are learned and grow with depth."""

    def __post_init__(self) -> None:
        check_sizes(self)
        if not self.layer_types:
            raise ConfigError("a hybrid model needs at least one layer; give layer_types")
        for kind in self.layer_types:
            if kind != FULL:
                _ = MIXERS[kind]

    @property
    def units(self) -> int:
        """Of the feed-forward network."""
        return -(-(8 * self.width) // (3 * 256)) * 256 if self.hidden is None else self.hidden


class HybridBlock(nn.Module):
    """A mixer of tokens and a feed-forward network, each behind a norm."""

    def __init__(self, config: HybridConfig, kind: str) -> None:
        super().__init__()
        width = config.width
        self.norm1, self.norm2 = nn.RMSNorm(width, eps=1e-5), nn.RMSNorm(width, eps=1e-5)
        self.mixer = SoftmaxAttention(width, config.attention) if kind == FULL else mixer(kind, width, config.heads)
        self.feed_forward = GatedFeedForward(width, config.units)

    def forward(self, x_BTD: Tensor, state: Any, *lowest: Tensor) -> tuple[Tensor, Any]:
        mixed, state = self.mixer(self.norm1(x_BTD), state, *lowest)
        x = x_BTD + mixed
        return x + self.feed_forward(self.norm2(x)), state


class HybridLanguageModel(Generates, nn.Module):
    """Logits of the next token, from tokens.

    >>> model = HybridLanguageModel(HybridConfig(layer_types=("gla", "full"), width=32, vocabulary=11))
    >>> model(torch.zeros(2, 5, dtype=torch.long)).shape
    torch.Size([2, 5, 11])
    """

    def __init__(self, config: HybridConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.blocks = nn.ModuleList(HybridBlock(config, kind) for kind in config.layer_types)
        self.norm = nn.RMSNorm(config.width)
        self.head = None if config.tied else nn.Linear(config.width, config.vocabulary, bias=False)
        bounds = torch.zeros(len(config.layer_types), config.width)
        self.lower_bounds = nn.Parameter(bounds) if config.lower_bounds else None
        for name, module in self.named_modules():
            if isinstance(module, nn.RMSNorm) and not name.endswith(("query_norm", "key_norm")):
                module.eps = config.norm_eps
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """(B, T, V)."""
        return self.step(tokens_BT, None)[0]

    def lowest(self) -> list[tuple[Tensor, ...]]:
        """For each layer the least that its forget gate may be (D), where it has such a bound; the first has none.

        Source: Qin et al., 2023, arXiv:2311.04823, section 3.2: shares of all layers that add up to 1, those up to a
        layer's added.
        """
        if self.lower_bounds is None:
            return [()] * len(self.blocks)
        shares = self.lower_bounds.softmax(0)
        bounds = shares.cumsum(0) - shares[0]
        return [(bounds[i],) if i and kind in BOUNDED else () for i, kind in enumerate(self.config.layer_types)]

    def step(self, tokens_BT: Tensor, state: tuple[Any, ...] | None) -> tuple[Tensor, tuple[Any, ...]]:
        """The logits of some more tokens after those that made `state`, and the state after them."""
        x, kept = self.tokens(tokens_BT), []
        for i, (block, lowest) in enumerate(zip(self.blocks, self.lowest(), strict=True)):
            x, one = block(x, None if state is None else state[i], *lowest)
            kept.append(one)
        head = self.tokens.weight if self.head is None else self.head.weight
        return F.linear(self.norm(x), head), tuple(kept)


HYBRID = MODELS.add(
    "hybrid",
    Companion(
        title="A Systematic Analysis of Hybrid Linear Attention",
        source="Wang et al., 2025, arXiv:2507.06457",
        summary="a language model of any pattern of six linear mixers and full attention",
        build=HybridLanguageModel,
        sizes={
            "340M GLA 3:1": Size(
                config=HybridConfig(layer_types=pattern(24, "gla", 3)), parameters=341_555_712, said="340M"
            ),
            "1.3B DeltaNet 3:1": Size(
                config=HybridConfig(
                    layer_types=pattern(24, "deltanet", 3),
                    width=2048,
                    heads=16,
                    attention=AttentionConfig(heads=16),
                ),
                parameters=1_299_796_224,
                said="1.3B",
            ),
        },
        config=HybridConfig,
        toy=HybridConfig(
            layer_types=("gla", "retnet", "hgrn", "hgrn2", "deltanet", "gated_deltanet", FULL),
            width=16,
            heads=2,
            vocabulary=32,
            attention=AttentionConfig(heads=2),
            hidden=24,
        ),
        example=tokens_for,
        done=(
            "weights of flash-linear-attention (`outpace.models.load_published`): create with norm_eps=1e-6, and "
            "tied=False where the head is its own",
            "six linear mixers (HGRN, RetNet, GLA, HGRN-2, DeltaNet, gated DeltaNet) and full attention, any pattern",
            "forget gates of HGRN and HGRN-2 with lower bounds that grow with depth: lower_bounds=True",
            "decoding token by token with one state a layer",
        ),
        left_out=("the 72 trained checkpoints and their benchmarks",),
        claim="one full layer among linear ones brings back the recall that a state of fixed size loses",
        limits=(
            "the paper does not say at which layers full attention stands: here, after every r linear ones",
            "embeddings are tied, which gives the sizes that the paper names within a tenth; it does not say",
        ),
    ),
)
