"""S2AFormer, reconstructed: attention whose queries and keys have one channel a head, over a map made coarser.

The paper has no public code and does not say enough to build its models: sizes here are chosen so that parameters and
multiplications come near what it prints.

Source: Wang et al., 2025, arXiv:2505.22195.
Shapes: B batch, C channels, Y X grid, N positions, M positions of the coarser grid, H heads, K key channels of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ..kernels.attention import attend
from .companion import MODELS, Companion, Size, check_divides, check_sizes
from .layers.pictures import ChannelNorm, depthwise, drawn_normal, tokens_of
from .numbers import picture_batch

STRIDE = 32
"""Of the last stage: pictures are multiples of it."""
BEFORE_LOGITS = 1280
"""Width between the last stage and the logits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class S2AFormerConfig:
    """Sizes of an S2AFormer; the defaults are the mini one."""

    widths: tuple[int, ...] = (28, 56, 112, 224)
    """Channels of each of the four stages."""
    depths: tuple[int, ...] = (1, 2, 5, 4)
    """Blocks of each stage."""
    heads: tuple[int, ...] = (1, 2, 4, 8)
    """Of each stage."""
    reductions: tuple[int, ...] = (8, 4, 2, 1)
    """By how much each side of the grid of keys is shorter, in each stage; more is cheaper and coarser."""
    key_width: int = 1
    """Channels of a head's queries and keys; 1 is the paper's strip."""
    expansion: int = 4
    """Times the width: hidden channels of the feed-forward networks."""
    channels: int = 3
    """Of a picture."""
    classes: int = 1000
    """Logits."""

    def __post_init__(self) -> None:
        lengths = {len(self.widths), len(self.depths), len(self.heads), len(self.reductions)}
        check_sizes(self)
        if lengths != {4}:
            raise ConfigError(
                "an S2AFormer has four stages, a width, a depth, heads and a reduction for each, not "
                f"{self.widths}, {self.depths}, {self.heads} and {self.reductions}"
            )
        check_divides("channels of the first stage over the stem's half", self.widths[0], 2)
        for stage, (width, heads, reduction) in enumerate(zip(self.widths, self.heads, self.reductions, strict=True)):
            check_divides(f"channels of stage {stage + 1} over heads", width, heads)
            check_divides(f"a reduction that fits the smallest grid of stage {stage + 1}", 8 >> stage, reduction)


class StripAttention(nn.Module):
    """Every position attends to the positions of a coarser grid, by queries and keys of few channels a head.

    With one channel, a head's scores are a column times a row: it prefers high keys or low ones, more or less sharply.
    """

    def __init__(self, width: int, heads: int, reduction: int, key_width: int = 1) -> None:
        super().__init__()
        self.heads = heads
        coarser = nn.Conv2d(width, width, reduction, reduction, groups=width)
        self.reduce = nn.Sequential(coarser, ChannelNorm(width)) if reduction > 1 else nn.Identity()
        self.query, self.key = nn.Linear(width, heads * key_width), nn.Linear(width, heads * key_width)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        near = tokens_of(self.reduce(x_BCYX))
        parts = self.query(tokens_of(x_BCYX)), self.key(near), self.value(near)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        out = self.out(attend(q, k, v).transpose(1, 2).flatten(2))
        return out.mT.unflatten(-1, x_BCYX.shape[2:])


class PerceptionBlock(nn.Module):
    """A depthwise convolution, strip attention, local mixing and a feed-forward network, each added to its input."""

    def __init__(self, width: int, heads: int, reduction: int, config: S2AFormerConfig) -> None:
        super().__init__()
        hidden = config.expansion * width
        self.positions = depthwise(width, 3)
        self.attention = nn.Sequential(ChannelNorm(width), StripAttention(width, heads, reduction, config.key_width))
        self.local = nn.Sequential(
            ChannelNorm(width), nn.Conv2d(width, width, 1), depthwise(width, 3), nn.GELU(), nn.Conv2d(width, width, 1)
        )
        self.feed_forward = nn.Sequential(
            ChannelNorm(width), nn.Conv2d(width, hidden, 1), nn.GELU(), nn.Conv2d(hidden, width, 1)
        )

    def forward(self, x_BCYX: Tensor) -> Tensor:
        x = x_BCYX
        for part in (self.positions, self.attention, self.local, self.feed_forward):
            x = x + part(x)
        return x


class S2AFormer(nn.Module):
    """Logits from pictures (B, C, Y, X) whose sides are multiples of 32.

    >>> import torch
    >>> model = S2AFormer(S2AFormerConfig(widths=(4, 8, 16, 32), depths=(1, 1, 1, 1), classes=5))
    >>> model(torch.zeros(2, 3, 32, 64)).shape
    torch.Size([2, 5])
    """

    def __init__(self, config: S2AFormerConfig) -> None:
        super().__init__()
        self.config = config
        inputs = config.widths[0] // 2
        layers: list[nn.Module] = []
        for before, stride in ((config.channels, 2), (inputs, 1), (inputs, 1)):
            convolution = nn.Conv2d(before, inputs, 3, stride, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(inputs), nn.GELU()]
        for width, depth, heads, reduction in zip(
            config.widths, config.depths, config.heads, config.reductions, strict=True
        ):
            layers += [nn.Conv2d(inputs, width, 2, 2), ChannelNorm(width)]
            layers += [PerceptionBlock(width, heads, reduction, config) for _ in range(depth)]
            inputs = width
        self.layers = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Linear(inputs, BEFORE_LOGITS), nn.LayerNorm(BEFORE_LOGITS), nn.Linear(BEFORE_LOGITS, config.classes)
        )
        self.apply(drawn_normal)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """(B, classes).

        Raises: ConfigError: a picture whose sides are not multiples of 32.
        """
        rows, columns = x_BCYX.shape[2:]
        if rows % STRIDE or columns % STRIDE:
            raise ConfigError(
                f"an S2AFormer takes pictures whose sides are multiples of {STRIDE}, not {rows} x {columns}; pad them"
            )
        return self.head(F.adaptive_avg_pool2d(self.layers(x_BCYX), 1).flatten(1))


def _size(parameters: int, said: str, widths: tuple[int, int, int, int], depths: tuple[int, int, int, int]) -> Size:
    return Size(config=S2AFormerConfig(widths=widths, depths=depths), parameters=parameters, said=said)


S2AFORMER = MODELS.add(
    "s2aformer",
    Companion(
        title="S2AFormer: Strip Self-Attention for Efficient Vision Transformer",
        source="Xu et al., 2025, arXiv:2505.22195",
        summary="a pyramid whose attention has few keys and one channel a head for scores; a reconstruction",
        build=S2AFormer,
        sizes={
            "mini": _size(5_039_068, "5.02M, 0.43 G multiplications", (28, 56, 112, 224), (1, 2, 5, 4)),
            "t": _size(5_819_178, "5.80M, 0.655 G", (32, 64, 128, 288), (1, 2, 9, 2)),
            "xs": _size(6_558_850, "6.54M, 0.786 G", (32, 64, 160, 288), (1, 2, 8, 2)),
            "s": _size(10_676_318, "10.69M, 1.38 G", (48, 64, 256, 448), (3, 2, 4, 2)),
            "m": _size(24_870_598, "24.87M, 4.12 G", (32, 128, 320, 384), (3, 4, 13, 3)),
        },
        config=S2AFormerConfig,
        toy=S2AFormerConfig(widths=(4, 8, 16, 32), depths=(1, 1, 1, 1), classes=5),
        example=lambda config: (picture_batch(64, channels=config.channels),),
        done=(
            "strip attention with any reduction and any number of key channels",
            "a reconstruction of the five models within 0.6 % of the printed parameters and multiplications",
        ),
        left_out=("training on ImageNet, detection and segmentation",),
        claim="scores from one channel a head and few keys lose nothing and save most of attention's cost",
        limits=(
            "a reconstruction: no code is public, and the paper gives neither widths and depths nor what its local "
            "interaction is; dozens of choices come as near to its counts, so published weights would not load",
            "the trial is weak evidence: without any attention, convolutions alone name nearly as many digits",
            "a head's scores have rank 1: all queries rank the keys alike, or in reverse; it is no full attention",
        ),
    ),
)
