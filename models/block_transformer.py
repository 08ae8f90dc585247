"""Block Transformer: blocks of tokens are read as one, and each is written from a single vector of what came before.

Source: Ho et al., 2024, arXiv:2406.02657.
Shapes: B batch, T tokens, N blocks, L tokens of a block, P prefixes, D width, H heads, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ..kernels.attention import attend
from .companion import MODELS, Companion, Size, check_divides, check_sizes
from .layers.generation import check_prompt, drawn
from .layers.rotary import rotate
from .numbers import tokens_for

Cache = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockTransformerConfig:
    """Sizes of a Block Transformer; the defaults are the paper's smallest, 33M."""

    vocabulary: int = 50_304
    """Tokens it knows."""
    width: int = 256
    """D."""
    block_layers: int = 3
    """Layers that read blocks."""
    token_layers: int = 3
    """Layers that write the tokens of one block."""
    heads: int = 16
    """H, of both."""
    block: int = 4
    """L: the higher, the less is kept and read in decoding, and the higher the loss."""
    prefixes: int = 2
    """P: vectors that the context of a block is expanded to."""
    rotary_share: float = 0.25
    """Of a head's channels, those that turn with the position."""

    def __post_init__(self) -> None:
        check_sizes(self)
        check_divides("width of a Block Transformer over heads", self.width, self.heads)
        check_divides("width of a Block Transformer over the tokens of a block", self.width, self.block)
        if not 0 <= self.rotary_share <= 1:
            raise ConfigError(f"rotary_share of a Block Transformer must be in [0, 1], not {self.rotary_share}")


class ParallelLayer(nn.Module):
    """Attention and feed-forward network side by side, as in GPT-NeoX."""

    def __init__(self, config: BlockTransformerConfig) -> None:
        super().__init__()
        width = config.width
        self.heads, self.turned = config.heads, int(config.width // config.heads * config.rotary_share) // 2 * 2
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x_BTD: Tensor, cache: Cache | None) -> tuple[Tensor, Cache]:
        start = 0 if cache is None else cache[0].shape[2]
        parts = self.query_key_value(self.norm1(x_BTD)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        q, k, v = parts.chunk(3, -1)
        q, k = (torch.cat([rotate(part[..., : self.turned], start), part[..., self.turned :]], -1) for part in (q, k))
        if cache is not None:
            k, v = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)
        mixed = self.out(attend(q, k, v, causal=True).transpose(1, 2).flatten(-2))
        return x_BTD + mixed + self.feed_forward(self.norm2(x_BTD)), (k, v)


class Decoder(nn.Module):
    """Causal layers over vectors, with a cache."""

    def __init__(self, config: BlockTransformerConfig, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ParallelLayer(config) for _ in range(layers))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, x_BTD: Tensor, caches: tuple[Cache, ...] | None = None) -> tuple[Tensor, tuple[Cache, ...]]:
        kept = []
        for i, layer in enumerate(self.layers):
            x_BTD, cache = layer(x_BTD, None if caches is None else caches[i])
            kept.append(cache)
        return self.norm(x_BTD), tuple(kept)


class BlockTransformer(nn.Module):
    """Logits of every token from the blocks before its own and the tokens of its own.

    The first block is a prompt: nothing predicts it.

    >>> model = BlockTransformer(BlockTransformerConfig(vocabulary=11, width=16, heads=2))
    >>> model(torch.zeros(2, 12, dtype=torch.long)).shape  # of the tokens 4 to 11
    torch.Size([2, 8, 11])
    """

    def __init__(self, config: BlockTransformerConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.pieces = nn.Embedding(config.vocabulary, width // config.block)
        self.blocks = Decoder(config, config.block_layers)
        self.expansion = nn.Linear(width, config.prefixes * width)
        self.tokens = nn.Embedding(config.vocabulary, width)
        self.writer = Decoder(config, config.token_layers)
        self.head = nn.Linear(width, config.vocabulary, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
        nn.init.normal_(self.expansion.weight, std=width**-0.5)
        nn.init.zeros_(self.expansion.bias)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """(B, T - L, V): logits of the tokens from L on.

        Raises: ConfigError: the tokens are not two or more whole blocks; `pad` fills them up from the left.
        """
        L, count = self.config.block, tokens_BT.shape[-1]
        if tokens_BT.ndim != 2 or count % L or count < 2 * L:
            raise ConfigError(
                f"a Block Transformer takes (batch, tokens) of two or more whole blocks of {L}, not "
                f"{tuple(tokens_BT.shape)}; fill the first block up from the left"
            )
        contexts, _ = self.blocks(self.read(tokens_BT[:, :-L]))
        told = tokens_BT[:, L:].reshape(-1, L)
        return self.write(contexts.flatten(0, 1), told[:, :-1]).view(len(tokens_BT), -1, self.config.vocabulary)

    def read(self, tokens_BT: Tensor) -> Tensor:
        """(B, N, D): the pieces of a block's tokens side by side."""
        return self.pieces(tokens_BT).flatten(1).unflatten(1, (-1, self.config.width))

    def prefix(self, context_RD: Tensor) -> Tensor:
        """(R, P, D): what the tokens of a block are written from."""
        return self.expansion(context_RD).unflatten(-1, (self.config.prefixes, -1))

    def write(self, context_RD: Tensor, told_RL: Tensor) -> Tensor:
        """(R, L, V): the logits of a block's tokens, given its context and all of them but the last."""
        out, _ = self.writer(torch.cat([self.prefix(context_RD), self.tokens(told_RL)], 1))
        return self.head(out[:, self.config.prefixes - 1 :])

    @torch.no_grad()
    def generate(
        self, tokens_BT: Tensor, count: int, *, temperature: float = 0.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """(B, count): what follows whole blocks, with caches: one step of `blocks` a block.

        Args:
            temperature: of the draw; 0 takes the likeliest tokens.
            generator: that tokens are drawn by.

        Raises: ConfigError: the prompt is not one or more whole blocks, or a number that cannot be.
        """
        check_prompt(tokens_BT, count, temperature)
        L = self.config.block
        if tokens_BT.shape[1] % L:
            raise ConfigError(f"a prompt is one or more whole blocks of {L} tokens, not {tuple(tokens_BT.shape)}")
        contexts, caches = self.blocks(self.read(tokens_BT))
        written: list[Tensor] = []
        while len(written) < count:
            out, inner = self.writer(self.prefix(contexts[:, -1]))
            new = [drawn(self.head(out[:, -1]), temperature, generator)]
            for _ in range(L - 1):
                out, inner = self.writer(self.tokens(new[-1])[:, None], inner)
                new.append(drawn(self.head(out[:, -1]), temperature, generator))
            written += new
            contexts, caches = self.blocks(self.read(torch.stack(new, 1)), caches)
        return torch.stack(written[:count], 1) if count > 0 else tokens_BT[:, :0]


def pad(tokens_BT: Tensor, block: int, filler: int) -> Tensor:
    """Tokens with `filler` before them, so that they are whole blocks: a prompt of any length can be read.

    In training, the paper puts 0 to L - 1 of them before each document at random, or it could not read such prompts.
    """
    return F.pad(tokens_BT, (-tokens_BT.shape[1] % block, 0), value=filler)


def cached_numbers(config: BlockTransformerConfig, tokens: int) -> int:
    """Keys and values kept for a text of so many tokens: those of its blocks, and of the one that is being written."""
    blocks = -(-tokens // config.block)
    inside = config.prefixes + config.block - 1
    return 2 * config.width * (config.block_layers * blocks + config.token_layers * inside)


BLOCK_TRANSFORMER = MODELS.add(
    "block_transformer",
    Companion(
        title="Block Transformer: Global-to-Local Language Modeling for Fast Inference",
        source="Ho et al., 2024, arXiv:2406.02657",
        summary="a language model that reads blocks of tokens and writes each block from one vector",
        build=BlockTransformer,
        sizes={
            name: Size(
                config=BlockTransformerConfig(width=width, block_layers=layers, token_layers=layers),
                parameters=parameters,
                said=said,
            )
            for name, width, layers, parameters, said in (
                ("33M", 256, 3, 33_846_272, "33M"),
                ("77M", 512, 3, 77_391_872, "77M"),
                ("170M", 768, 6, 173_164_032, "170M"),
                ("420M", 1024, 12, 420_313_088, "420M"),
                ("1.4B", 2048, 12, 1_448_800_256, "1.4B"),
            )
        },
        config=BlockTransformerConfig,
        toy=BlockTransformerConfig(vocabulary=32, width=16, block_layers=1, token_layers=2, heads=2, rotary_share=0.5),
        example=tokens_for,
        done=(
            "embedder by concatenation, block decoder, token decoder with two prefixes, all of GPT-NeoX layers",
            "decoding with caches, one step of the block decoder a block; the size of the caches",
        ),
        left_out=(
            "the other embedders (convolution, RoBERTa) and token decoders (cross-attention)",
            "uptraining from a trained model; the losses on blocks, which the paper leaves off too",
        ),
        claim="reading and keeping the text block by block decodes faster than a plain model of as many layers",
        limits=(
            "16 heads at every size: the paper's configurations are derived from one model of 16",
            "the first block of a text is never predicted: its loss is not in any comparison",
        ),
    ),
)
