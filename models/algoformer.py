"""AlgoFormer: a transformer before, one that is run in a loop, and one after: prepare, iterate, read off.

Source: Gao et al., 2024, arXiv:2402.13572; training on the last loops only: Yang, Lee, Nowak, Papailiopoulos, 2023,
arXiv:2311.12424.
Shapes: B batch, N examples, T = 2 N tokens (an input, its value, the next input ...), K numbers of an input, D width,
H heads, W width of a head, L loops that are read off.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..kernels.attention import attend
from .companion import MODELS, Companion, check_divides, check_sizes
from .numbers import numbers

INJECTIONS = ("none", "add")


@dataclass(frozen=True, kw_only=True, slots=True)
class AlgoFormerConfig:
    """Sizes of an AlgoFormer."""

    inputs: int = 20
    """K."""
    examples: int = 40
    """N at most."""
    width: int = 256
    """D."""
    heads: int = 8
    """H."""
    before: int = 1
    """Blocks of the transformer that prepares; 0 leaves it out."""
    looped: int = 1
    """Blocks that are run again and again."""
    after: int = 1
    """Blocks of the transformer that reads off; 0 leaves it out."""
    loops: int = 20
    """Times that the looped blocks run."""
    injection: str = "none"
    """What a loop reads: "none", what the last one made (the paper's); "add", the prepared tokens added to it."""

    def __post_init__(self) -> None:
        check_sizes(self, zero=("before", "after"))
        check_divides("width over heads", self.width, self.heads)
        if self.injection not in INJECTIONS:
            raise ConfigError(f"injection of an AlgoFormer must be {' or '.join(INJECTIONS)}, not '{self.injection}'")


class Block(nn.Module):
    """Causal attention and a feed-forward network, each behind a norm."""

    def __init__(self, config: AlgoFormerConfig) -> None:
        super().__init__()
        D, self.heads = config.width, config.heads
        self.norm1, self.norm2 = nn.LayerNorm(D), nn.LayerNorm(D)
        self.mix, self.out = nn.Linear(D, 3 * D), nn.Linear(D, D)
        self.feed_forward = nn.Sequential(nn.Linear(D, 4 * D), nn.GELU(), nn.Linear(4 * D, D))

    def forward(self, x_BTD: Tensor) -> Tensor:
        q, k, v = self.mix(self.norm1(x_BTD)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x_BTD + self.out(attend(q, k, v, causal=True).transpose(1, 2).flatten(2))
        return x + self.feed_forward(self.norm2(x))


class AlgoFormer(nn.Module):
    """The value of each input from the examples before it.

    >>> model = AlgoFormer(AlgoFormerConfig(inputs=3, examples=5, width=8, heads=2, loops=4))
    >>> model(torch.zeros(2, 5, 3), torch.zeros(2, 5)).shape
    torch.Size([1, 2, 5])
    """

    def __init__(self, config: AlgoFormerConfig) -> None:
        super().__init__()
        self.config, D = config, config.width
        self.read = nn.Linear(config.inputs, D)
        self.places = nn.Parameter(0.02 * torch.randn(2 * config.examples, D))
        self.before, self.looped, self.after = (
            nn.Sequential(*(Block(config) for _ in range(count)))
            for count in (config.before, config.looped, config.after)
        )
        self.norm, self.write = nn.LayerNorm(D), nn.Linear(D, 1)

    def forward(self, x_BNK: Tensor, y_BN: Tensor, *, loops: int | None = None, trained: int = 1) -> Tensor:
        """(L, B, N): what is said after each of the last loops.

        Args:
            x_BNK: inputs.
            y_BN: their values; that of an example is seen by those after it only.
            loops: how many; those of the configuration where None.
            trained: L: gradients go through these alone, and through what they are given no further.

        Raises: ConfigError: more examples than there are places, or loops that are not at least `trained`.
        """
        loops = self.config.loops if loops is None else loops
        if x_BNK.shape[1] > self.config.examples:
            raise ConfigError(f"this AlgoFormer has places for {self.config.examples} examples, not {x_BNK.shape[1]}")
        if not 1 <= trained <= loops:
            raise ConfigError(f"of {loops} loops, 1 to {loops} can be trained, not {trained}")
        values = torch.zeros_like(x_BNK)
        values[..., 0] = y_BN
        tokens = self.read(torch.stack([x_BNK, values], 2).flatten(1, 2))
        prepared = self.before(tokens + self.places[: tokens.shape[1]])
        state, said = prepared, []
        for loop in range(loops):
            kept = loop >= loops - trained
            with torch.set_grad_enabled(torch.is_grad_enabled() and kept):
                state = self.looped(state + prepared if self.config.injection == "add" and loop else state)
            if kept:
                said.append(self.write(self.norm(self.after(state)))[:, ::2, 0])
        return torch.stack(said)


def descent_loop(x_BNK: Tensor, left_BN: Tensor, rate: float, *, examples: int) -> Tensor:
    """One loop of linear attention that is a step of gradient descent on least squares.

    A token is an input and what is left of its value; queries and keys pick the input, values what is left. The first
    `examples` tokens are the keys; what the others had left goes to minus their prediction.

    Shapes: (B, N, K), (B, N) -> (B, N).
    """
    keys, values = x_BNK[:, :examples], left_BN[:, :examples]
    return left_BN - rate / examples * ((x_BNK @ keys.mT) @ values[..., None])[..., 0]


def newton_loop(inverse: Tensor, matrix: Tensor) -> Tensor:
    """One loop of Newton's iteration for the inverse of a matrix: 2 A - A S A."""
    return 2 * inverse - inverse @ matrix @ inverse


def _example(config: AlgoFormerConfig) -> tuple[Tensor, Tensor]:
    inputs = numbers((2, config.examples, config.inputs), dtype=torch.float32)
    return inputs, numbers((2, config.examples), 1, dtype=torch.float32)


ALGOFORMER = MODELS.add(
    "algoformer",
    Companion(
        title="On the Expressive Power of a Variant of the Looped Transformer",
        source="Gao et al., 2024, arXiv:2402.13572",
        summary="a transformer in a loop between two others, for algorithms on examples in the context",
        build=AlgoFormer,
        config=AlgoFormerConfig,
        toy=AlgoFormerConfig(inputs=3, examples=5, width=8, heads=2, loops=3),
        example=_example,
        done=(
            "the model, with the raw state in the loop or with the prepared tokens added (the looped transformer)",
            "training on the last loops alone, and any number of loops afterwards",
            "two algorithms as loops in closed form: gradient descent by linear attention, Newton's inverse",
        ),
        left_out=("decision trees, autoregressive and chain-of-thought tasks; curricula; 500,000 steps of training",),
        claim="it solves regression on a learned representation better than a plain transformer of more blocks",
        limits=("its published code was not at hand: head and places follow the looped transformer's",),
    ),
)
