"""MosaicBERT: an encoder with linear biases for positions, gated feed-forward networks and no work on padding.

Source: Portes et al., 2023, arXiv:2312.17482.
Shapes: B batch, T tokens, R valid tokens of a batch, D width, H heads, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ..kernels.attention import alibi_bias, attend
from ..kernels.packing import Packing
from .companion import MODELS, Companion, Size, check_divides, check_sizes
from .layers.feed_forward import GatedFeedForward
from .numbers import tokens_for


@dataclass(frozen=True, kw_only=True, slots=True)
class MosaicBertConfig:
    """Sizes of a MosaicBERT; the defaults are the paper's base model."""

    vocabulary: int = 30_528
    """Tokens it knows, a multiple of 64."""
    width: int = 768
    """D."""
    layers: int = 12
    """Blocks."""
    heads: int = 12
    """H."""
    hidden: int = 3072
    """Units of a feed-forward network."""
    dropout: float = 0.1
    """Share of numbers dropped in training; attention drops none."""
    gated: bool = True
    """Whether the feed-forward network is gated (GeGLU), or BERT's."""
    learned_positions: int | None = None
    """Length of a learned table of positions, as BERT's, instead of linear biases."""

    def __post_init__(self) -> None:
        check_divides("width over heads", self.width, self.heads)
        check_sizes(self)
        if not self.dropout < 1:
            raise ConfigError(f"dropout of a MosaicBERT must be in [0, 1), not {self.dropout}")


class LowPrecisionLayerNorm(nn.LayerNorm):
    """A layer norm that stays in autocast's type, where torch's own goes up to float32."""

    def forward(self, input: Tensor) -> Tensor:
        if not torch.is_autocast_enabled(input.device.type):
            return super().forward(input)
        dtype = torch.get_autocast_dtype(input.device.type)
        with torch.autocast(input.device.type, enabled=False):
            return F.layer_norm(
                input.to(dtype), self.normalized_shape, self.weight.to(dtype), self.bias.to(dtype), self.eps
            )


class PlainFeedForward(nn.Module):
    """BERT's: down gelu(up x)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x)))


class MosaicBertBlock(nn.Module):
    """Attention and feed-forward network on valid tokens, each added and then normalised."""

    def __init__(self, config: MosaicBertConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.query_key_value, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm1, self.norm2 = (LowPrecisionLayerNorm(width, eps=1e-12) for _ in range(2))
        self.feed_forward = (
            GatedFeedForward(width, config.hidden, activation="gelu", bias_out=True)
            if config.gated
            else PlainFeedForward(width, config.hidden)
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_RD: Tensor, packing: Packing, bias: Tensor | None, wanted_R: Tensor | None) -> Tensor:
        """Of the `wanted_R` rows only, where given: attention still sees all."""
        parts = packing.unpack(self.query_key_value(x_RD)).unflatten(-1, (3, self.heads, -1))
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        found = attend(q, k, v, allowed=packing.valid[:, None, None], bias=bias).transpose(1, 2).flatten(-2)
        found = packing.pack(found)
        if wanted_R is not None:
            x_RD, found = x_RD[wanted_R], found[wanted_R]
        x = self.norm1(x_RD + self.dropout(self.out(found)))
        return self.norm2(x + self.dropout(self.feed_forward(x)))


class MosaicBert(nn.Module):
    """Logits of masked tokens, from tokens.

    >>> model = MosaicBert(MosaicBertConfig(vocabulary=11, width=8, layers=2, heads=2, hidden=8))
    >>> model(torch.zeros(2, 5, dtype=torch.long)).shape
    torch.Size([2, 5, 11])
    """

    def __init__(self, config: MosaicBertConfig) -> None:
        super().__init__()
        width = config.width
        self.config = config
        self.words, self.types = nn.Embedding(config.vocabulary, width), nn.Embedding(2, width)
        self.positions = nn.Embedding(config.learned_positions, width) if config.learned_positions else None
        self.norm, self.dropout = LowPrecisionLayerNorm(width, eps=1e-12), nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(MosaicBertBlock(config) for _ in range(config.layers))
        self.head = nn.Linear(width, width)
        self.head_norm = LowPrecisionLayerNorm(width, eps=1e-12)
        self.head_bias = nn.Parameter(torch.zeros(config.vocabulary))
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, tokens_BT: Tensor, valid: Tensor | None = None) -> Tensor:
        """(B, T, V); `valid` (B, T) is False at padding, whose logits are 0."""
        packing, x = self._encoded(tokens_BT, valid, None)
        return packing.unpack(self._logits(x))

    def encode(self, tokens_BT: Tensor, valid: Tensor | None = None) -> Tensor:
        """(B, T, D): what the last block gives, 0 at padding."""
        packing, x = self._encoded(tokens_BT, valid, None)
        return packing.unpack(x)

    def masked_logits(self, tokens_BT: Tensor, masked: Tensor, valid: Tensor | None = None) -> Tensor:
        """(masked tokens, V): logits where `masked` (B, T) is True and nowhere else, the last block included."""
        return self._logits(self._encoded(tokens_BT, valid, masked)[1])

    def _encoded(self, tokens_BT: Tensor, valid: Tensor | None, wanted: Tensor | None) -> tuple[Packing, Tensor]:
        packing = Packing.of(torch.ones_like(tokens_BT, dtype=torch.bool) if valid is None else valid)
        length, bias = tokens_BT.shape[1], None
        x = self.words(packing.pack(tokens_BT)) + self.types.weight[0]
        if self.positions is None:
            bias = alibi_bias(self.config.heads, length).to(x)
        elif length > self.positions.num_embeddings:
            raise ConfigError(f"this model has {self.positions.num_embeddings} positions, not {length}")
        else:
            places = torch.arange(length, device=x.device).expand_as(tokens_BT)
            x = x + self.positions(packing.pack(places))
        x = self.dropout(self.norm(x))
        for block in self.blocks[:-1]:
            x = block(x, packing, bias, None)
        return packing, self.blocks[-1](x, packing, bias, None if wanted is None else packing.pack(wanted))

    def _logits(self, x_RD: Tensor) -> Tensor:
        return F.linear(self.head_norm(F.gelu(self.head(x_RD))), self.words.weight, self.head_bias)


def mask_tokens(
    tokens: Tensor, *, rate: float, mask: int, vocabulary: int, special: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """(tokens with some hidden, which ones): of the hidden ones 80 % become `mask`, 10 % any token, 10 % stay.

    Args:
        rate: share that is hidden; the paper takes 0.3, and 0.15 to evaluate.
        special: bool of tokens' shape: never hidden.

    Raises: ConfigError: the rate is not in [0, 1].
    """
    if not 0 <= rate <= 1:
        raise ConfigError(f"the rate of masking is in [0, 1], not {rate}")
    hidden = (torch.rand(tokens.shape, generator=generator) < rate) & ~special
    kind = torch.rand(tokens.shape, generator=generator)
    other = torch.randint(vocabulary, tokens.shape, generator=generator)
    made = tokens.where(~hidden | (kind >= 0.9), tokens.new_full((), mask).where(kind < 0.8, other))
    return made, hidden


MOSAIC_BERT = MODELS.add(
    "mosaic_bert",
    Companion(
        title="MosaicBERT: A Bidirectional Encoder Optimized for Fast Pretraining",
        source="Portes et al., 2023, arXiv:2312.17482",
        summary="a BERT with linear position biases and gated networks that does no work on padding",
        build=MosaicBert,
        sizes={"base": Size(config=MosaicBertConfig(), parameters=137_400_384, said="137M")},
        config=MosaicBertConfig,
        toy=MosaicBertConfig(vocabulary=32, width=16, layers=2, heads=2, hidden=24),
        example=tokens_for,
        done=(
            "weights of mosaicml/examples and the hub (`outpace.models.load_published`)",
            "ALiBi, GeGLU, no work on padding, logits of masked tokens only, layer norms in low precision, masking",
            "BERT's own positions and network as settings, for comparisons",
        ),
        left_out=("pretraining on C4 and GLUE", "attention without padding in one kernel: it is padded for attention"),
        claim="linear biases work on texts longer than those trained on",
        limits=("speed-ups of the paper come from GPU kernels and from sequences of uneven length",),
    ),
)
