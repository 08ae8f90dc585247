"""ViG: a vision backbone whose tokens are mixed by gated linear attention in both directions.

Source: Liao et al., 2024, arXiv:2405.18425.
Shapes: B batch, C channels, Y X grid, N tokens row by row, D width, H heads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ..kernels.feed_forward import glu
from ..kernels.linear_attention import gated_linear_attention
from .companion import MODELS, Companion, Size, check_divides, check_sizes
from .layers.pictures import ChannelNorm, depthwise, drawn_normal, tokens_of
from .numbers import picture_batch

RANK, TEMPERATURE = 16, 16.0


@dataclass(frozen=True, kw_only=True, slots=True)
class VigConfig:
    """Sizes of a ViG; the defaults are the paper's plain tiny one."""

    widths: tuple[int, ...] = (192,)
    """Channels of each stage: one stage is the plain model, several are the hierarchical one."""
    depths: tuple[int, ...] = (12,)
    """Blocks of each stage."""
    heads: tuple[int, ...] = (3,)
    """Of each stage."""
    activated: bool = True
    """Whether SiLU follows the convolution and comes before the last matrix of a mixer (the plain tiny model only)."""
    norm_eps: float = 1e-5
    """What the plain model's norms before mixers and networks add to a mean square; published models have 1e-6."""
    picture: int = 224
    """Pixels of a side, which sizes the plain model's positions; the hierarchical one has none."""
    channels: int = 3
    """Of a picture."""
    classes: int = 1000
    """Logits."""

    def __post_init__(self) -> None:
        check_sizes(self)
        if not self.depths or not len(self.widths) == len(self.depths) == len(self.heads):
            raise ConfigError(
                f"a ViG has a width, a depth and heads for each stage, not {self.widths}, {self.depths}, {self.heads}"
            )
        for width, heads in zip(self.widths, self.heads, strict=True):
            check_divides("width of a ViG over twice the heads", width, 2 * heads)
        if not self.hierarchical:
            check_divides("pixels of a side of a plain ViG over its stride", self.picture, 16)

    @property
    def hierarchical(self) -> bool:
        """Whether it has several stages."""
        return len(self.widths) > 1


def both_directions(q: Tensor, k: Tensor, v: Tensor, forward_decay: Tensor, backward_decay: Tensor) -> Tensor:
    """The mean of gated linear attention from the first token on and from the last one back.

    Shapes: q, k and decays (B, H, N, K), v (B, H, N, V) -> (B, H, N, V).
    """
    there = gated_linear_attention(q, k, v, forward_decay)
    back = gated_linear_attention(*(x.flip(2) for x in (q, k, v, backward_decay)))
    return (there + back.flip(2)) / 2


class BidirectionalMixer(nn.Module):
    """A small convolution, gated linear attention in both directions, and a gate between the two."""

    def __init__(self, width: int, heads: int, *, activated: bool, backward: bool = True) -> None:
        super().__init__()
        self.heads, self.activated, self.backward = heads, activated, backward
        self.local = depthwise(width, 3, bias=False)
        self.query, self.key = nn.Linear(width, width // 2, bias=False), nn.Linear(width, width // 2, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.decay = nn.Sequential(nn.Linear(width, RANK, bias=False), nn.Linear(RANK, width))
        self.gate, self.out = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.norm, self.local_norm = (nn.RMSNorm(width // heads, eps=1e-5) for _ in range(2))

    def forward(self, x_BCYX: Tensor) -> Tensor:
        local = self.local(x_BCYX)
        l_BND = tokens_of(F.silu(local) if self.activated else local)
        q, k, v = (self.split(part(l_BND)) for part in (self.query, self.key, self.value))
        there, back = (F.logsigmoid(self.decay(l_BND)) / TEMPERATURE).chunk(2, -1)
        if self.backward:
            o = both_directions(q, k, v, self.split(there), self.split(back))
        else:  # an ablation: a place sees what comes before it only
            o = gated_linear_attention(q, k, v, self.split(there))
        a = self.split(self.gate(l_BND)).sigmoid()
        y = self.norm(o) * a + self.local_norm(self.split(l_BND)) * (1 - a)
        y = y.transpose(1, 2).flatten(-2)
        y = self.out(F.silu(y) if self.activated else y)
        return y.mT.unflatten(-1, x_BCYX.shape[2:])

    def split(self, x_BND: Tensor) -> Tensor:
        """(B, H, N, D / H)."""
        return x_BND.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class ChannelRms(nn.RMSNorm):
    """RMS norm over the channels of (B, C, Y, X)."""

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__(channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


Norm = Callable[[int], nn.Module]


class VigBlock(nn.Module):
    """The mixer, then SwiGLU."""

    def __init__(
        self, width: int, heads: int, hidden: int, norm: Norm, *, activated: bool, backward: bool = True
    ) -> None:
        super().__init__()
        self.norm1, self.norm2 = norm(width), norm(width)
        self.mixer = BidirectionalMixer(width, heads, activated=activated, backward=backward)
        self.gate, self.up, self.down = (
            nn.Linear(width, hidden, bias=False),
            nn.Linear(width, hidden, bias=False),
            nn.Linear(hidden, width, bias=False),
        )

    def forward(self, x_BCYX: Tensor) -> Tensor:
        x = x_BCYX + self.mixer(self.norm1(x_BCYX))
        h = self.norm2(x).movedim(1, -1)
        return x + glu(h, self.up.weight, self.down.weight, self.gate.weight).movedim(-1, 1)


class Vig(nn.Module):
    """Logits from pictures (B, C, Y, X).

    >>> model = Vig(VigConfig(widths=(8, 16), depths=(1, 1), heads=(1, 2), activated=False, classes=5))
    >>> model(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 5])
    """

    def __init__(self, config: VigConfig) -> None:
        super().__init__()
        self.config = config
        first, last = config.widths[0], config.widths[-1]
        c, half = config.channels, first // 2
        if config.hierarchical:
            stem: list[nn.Module] = [nn.Conv2d(c, half, 3, 2, 1), ChannelNorm(half), nn.GELU()]
        else:
            stem = [nn.Conv2d(c, half, 9, 8, 1), ChannelNorm(half), nn.SiLU()]
        self.stem = nn.Sequential(*stem, nn.Conv2d(half, first, 3, 2, 1), ChannelNorm(first))
        side = config.picture // 16
        positions = None if config.hierarchical else nn.Parameter(torch.randn(1, first, side, side) * 0.02)
        self.positions = positions
        norm: Norm = ChannelNorm if config.hierarchical else partial(ChannelRms, eps=config.norm_eps)
        layers: list[nn.Module] = []
        for stage, (width, depth, heads) in enumerate(zip(config.widths, config.depths, config.heads, strict=True)):
            if stage:
                layers += [nn.Conv2d(config.widths[stage - 1], width, 3, 2, 1), ChannelNorm(width)]
            multiple = 32 if config.hierarchical else 256
            hidden = math.ceil(int(8 * width / 3) / multiple) * multiple
            layers += [VigBlock(width, heads, hidden, norm, activated=config.activated) for _ in range(depth)]
        self.layers = nn.Sequential(*layers)
        self.norm = norm(last)
        self.head = nn.Linear(last, config.classes)
        self.apply(_draw)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """(B, classes).

        Raises: ConfigError: a plain model and pictures of another size than it was built for.
        """
        x = self.stem(x_BCYX)
        if self.positions is not None:
            if x.shape[2:] != self.positions.shape[2:]:
                raise ConfigError(
                    f"this ViG has positions for {tuple(self.positions.shape[2:])} tokens, not {tuple(x.shape[2:])}; "
                    f"build it with picture={16 * x.shape[2]}"
                )
            x = x + self.positions
        return self.head(self.norm(self.layers(x)).mean((2, 3)))


def _draw(module: nn.Module) -> None:
    drawn_normal(module)
    if isinstance(module, BidirectionalMixer):  # visited after its parts
        for part in module.modules():
            if isinstance(part, nn.Linear):
                nn.init.xavier_uniform_(part.weight, gain=2**-2.5)


def _plain(parameters: int, said: str, width: int, heads: int, *, activated: bool = False) -> Size:
    config = VigConfig(widths=(width,), heads=(heads,), activated=activated)
    return Size(config=config, parameters=parameters, said=said)


def _hierarchical(parameters: int, said: str, width: int, third: int, heads: int) -> Size:
    config = VigConfig(
        widths=(width, 2 * width, 4 * width, 8 * width),
        depths=(2, 2, third, 2),
        heads=(heads, 2 * heads, 4 * heads, 8 * heads),
        activated=False,
    )
    return Size(config=config, parameters=parameters, said=said)


VIG = MODELS.add(
    "vig",
    Companion(
        title="ViG: Linear-complexity Visual Sequence Learning with Gated Linear Attention",
        source="Liao et al., 2024, arXiv:2405.18425",
        summary="a vision backbone of linear cost: gated linear attention in both directions",
        build=Vig,
        sizes={
            "tiny": _plain(5_834_536, "6M", 192, 3, activated=True),
            "small": _plain(22_615_144, "23M", 384, 6),
            "base": _plain(89_022_184, "89M", 768, 12),
            "hierarchical-tiny": _hierarchical(28_600_680, "29M", 96, 5, 3),
            "hierarchical-small": _hierarchical(50_051_688, "50M", 96, 17, 3),
            "hierarchical-base": _hierarchical(88_904_360, "89M", 128, 17, 4),
        },
        config=VigConfig,
        toy=VigConfig(widths=(8, 16), depths=(1, 1), heads=(1, 2), activated=False, picture=32, classes=5),
        example=lambda config: (picture_batch(config.picture, channels=config.channels),),
        done=(
            "weights of the published code (`outpace.models.load_published`): create plain models with norm_eps=1e-6",
            "plain and hierarchical models",
            "attention in both directions with a gate of each",
        ),
        left_out=("one fused kernel for both directions", "training on ImageNet"),
        claim="both directions see what one cannot",
        limits=("tokens are read row by row: what is near in a column is far in the sequence",),
    ),
)
