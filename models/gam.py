"""Gated Associative Memory: a language model without attention between tokens.

Every block reads the last few tokens through a causal convolution and a learned bank of memories through a softmax, and
gates the two into one.

Source: Acharya, 2025, arXiv:2509.00605.
Shapes: B batch, T tokens, D width, M memories, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ..kernels.attention import attend
from ..kernels.convolution import causal_conv
from .companion import MODELS, Companion, Size, check_sizes
from .layers.generation import Generates
from .numbers import tokens_for

FUSIONS = ("gated", "sum", "local", "global")


@dataclass(frozen=True, kw_only=True, slots=True)
class GamConfig:
    """Sizes of a GAM; the defaults are the paper's."""

    vocabulary: int = 10_000
    """Tokens it knows."""
    length: int = 256
    """Positions it has an embedding for."""
    width: int = 512
    """Of the residual stream."""
    layers: int = 6
    """Blocks."""
    memories: int = 512
    """Rows of each block's bank."""
    kernel: int = 3
    """Tokens that the convolution sees, the newest included."""
    dropout: float = 0.1
    """Share of numbers dropped in training."""
    fusion: str = "gated"
    """How the two paths become one: "gated" (the paper's), or for ablations "sum", "local" or "global" alone."""

    def __post_init__(self) -> None:
        check_sizes(self)
        if not self.dropout < 1:
            raise ConfigError(f"dropout of a GAM must be in [0, 1), not {self.dropout}")
        if self.fusion not in FUSIONS:
            raise ConfigError(f"fusion of a GAM must be one of {', '.join(FUSIONS)}, not '{self.fusion}'")


@dataclass(frozen=True, kw_only=True, slots=True)
class GamState:
    """What a GAM keeps of the tokens it has read: as much however many there were."""

    position: int
    """How many."""
    seen: tuple[Tensor, ...]
    """(B, kernel - 1, D) of each block: what its convolution still sees."""


class GamBlock(nn.Module):
    """One block: local and global path, gated, then a feed-forward network."""

    def __init__(self, config: GamConfig) -> None:
        super().__init__()
        width = config.width
        self.fusion = config.fusion
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.local = nn.Conv1d(width, width, config.kernel, groups=width)
        self.bank_MD = nn.Parameter(nn.init.xavier_uniform_(torch.empty(config.memories, width)))
        self.gate = nn.Linear(width, 2 * width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width), nn.Dropout(config.dropout)
        )

    def recall(self, h_BTD: Tensor) -> Tensor:
        """softmax(h M^T) M: attention to the bank, whose rows are keys and values at once."""
        bank = self.bank_MD.expand(len(h_BTD), 1, -1, -1)
        return attend(h_BTD[:, None], bank, bank, scale=1.0)[:, 0]

    def forward(self, x_BTD: Tensor, seen: Tensor | None) -> tuple[Tensor, Tensor]:
        h = self.norm1(x_BTD)
        local, seen = causal_conv(h, self.local.weight[:, 0], self.local.bias, state=seen, return_state=True)
        x = x_BTD + self.fuse(h, local)
        return x + self.feed_forward(self.norm2(x)), seen

    def fuse(self, h: Tensor, local: Tensor) -> Tensor:
        """The two paths as one."""
        if self.fusion == "local":
            return local
        if self.fusion == "global":
            return self.recall(h)
        if self.fusion == "sum":
            return local + self.recall(h)
        a, b = self.gate(h).chunk(2, -1)
        return a.sigmoid() * local + b.sigmoid() * self.recall(h)


class Gam(Generates, nn.Module):
    """Logits of the next token, from tokens.

    >>> model = Gam(GamConfig(vocabulary=11, width=8, layers=2, memories=4))
    >>> model(torch.zeros(2, 5, dtype=torch.long)).shape
    torch.Size([2, 5, 11])
    """

    def __init__(self, config: GamConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Embedding(config.length, config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(GamBlock(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, config.vocabulary, bias=False)
        self.tokens.weight = self.head.weight  # as in the paper's code: tied, and with the initial values of a Linear

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """(B, T, V)."""
        return self.step(tokens_BT, None)[0]

    def step(self, tokens_BT: Tensor, state: GamState | None) -> tuple[Tensor, GamState]:
        """The logits of some more tokens after those that made `state`, and the state after them.

        Raises: ConfigError: more tokens than there are positions.
        """
        start = 0 if state is None else state.position
        end = start + tokens_BT.shape[1]
        if end > self.config.length:
            raise ConfigError(f"this GAM has {self.config.length} positions, not {end}; build it with a larger length")
        x = self.dropout(self.tokens(tokens_BT) + self.positions.weight[start:end])
        seen = []
        for i, block in enumerate(self.blocks):
            x, kept = block(x, None if state is None else state.seen[i])
            seen.append(kept)
        return F.linear(self.norm(x), self.head.weight), GamState(position=end, seen=tuple(seen))


GAM = MODELS.add(
    "gam",
    Companion(
        title="Gated Associative Memory: A Parallel O(N) Architecture for Efficient Sequence Modeling",
        source="Acharya, 2025, arXiv:2509.00605",
        summary="a language model of causal convolutions and a learned memory bank, gated",
        build=Gam,
        sizes={"paper": Size(config=GamConfig(), parameters=22_599_680, said="22.6M")},
        config=GamConfig,
        toy=GamConfig(vocabulary=32, length=32, width=16, layers=2, memories=8),
        example=tokens_for,
        done=(
            "the model, with the initial values of its published code",
            "the ablations of its paths: sum, local alone, global alone",
            "streaming token by token in constant memory",
        ),
        left_out=("the comparison with Mamba", "training on WikiText-2 and TinyStories"),
        claim="gating the two paths is better than their sum and than either alone",
        limits=(
            "a token depends on exactly the last 1 + layers (kernel - 1) tokens, 13 at the paper's size: nothing "
            "before them can be recalled, whatever the length of the context",
        ),
    ),
)
