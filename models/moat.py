"""MOAT: mobile convolution takes the place of a transformer block's MLP, and comes before its attention.

Source: Yang et al., 2022, arXiv:2210.01820.
Shapes: B batch, C channels, Y X grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ..kernels.attention.windows import relative_bias, window_attention
from .companion import MODELS, Companion, Size, check_divides, check_sizes
from .numbers import picture_batch

HEAD_WIDTH, EXPANSION = 32, 4


@dataclass(frozen=True, kw_only=True, slots=True)
class MoatConfig:
    """Sizes of a MOAT; the defaults are MOAT-0."""

    stem: int = 64
    """Channels of the two convolutions before the first stage."""
    widths: tuple[int, ...] = (96, 192, 384, 768)
    """Channels of each stage."""
    depths: tuple[int, ...] = (2, 3, 7, 2)
    """Blocks of each stage."""
    attention: tuple[int, ...] = (2, 3)
    """Stages, from 0, whose blocks have attention; the others are mobile convolutions with squeeze and excitation."""
    positions: bool = True
    """Whether attention has a bias for relative positions."""
    picture: int = 224
    """Pixels of a side, which sizes the tables of relative positions; other pictures get resized tables."""
    table_corners: bool = True
    """Whether a resized table's corners are those it had; False as in the published code, whose tables are for 224."""
    window: tuple[int, ...] | None = None
    """Positions of a side of each attention stage's windows (14, 7 in detection); None is the whole map."""
    channels: int = 3
    """Of a picture."""
    classes: int = 1000
    """Logits."""

    def __post_init__(self) -> None:
        check_sizes(self, zero=("attention",))
        if not self.widths or len(self.widths) != len(self.depths):
            raise ConfigError(f"a MOAT has a width and a depth for each stage, not {self.widths} and {self.depths}")
        if not set(self.attention) <= set(range(len(self.widths))):
            raise ConfigError(f"stages with attention are among 0 to {len(self.widths) - 1}, not {self.attention}")
        if any(width < 4 for stage, width in enumerate(self.widths) if stage not in self.attention):
            raise ConfigError(f"stages of mobile convolutions squeeze at least 4 channels, not those of {self.widths}")
        if self.window is not None and len(self.window) != len(self.attention):
            raise ConfigError(f"give a window for each of the {len(self.attention)} stages with attention, or None")
        for stage in self.attention:
            check_divides(f"channels of stage {stage} over heads of {HEAD_WIDTH}", self.widths[stage], HEAD_WIDTH)


class SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow pads: with a stride, more after than before."""

    def forward(self, input: Tensor) -> Tensor:
        pads: list[int] = []
        for size, width, stride in zip(input.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            total = max((-(-size // stride) - 1) * stride + width - size, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(F.pad(input, pads))


class SqueezeExcite(nn.Module):
    """Channels weighed by what their means say."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.excite(F.silu(self.squeeze(x.mean((2, 3), keepdim=True)))).sigmoid()


class MobileConv(nn.Module):
    """An inverted bottleneck with its norms first; it may halve the grid."""

    def __init__(self, inputs: int, width: int, stride: int, *, excite: bool) -> None:
        super().__init__()
        wide = EXPANSION * width
        self.stride = stride
        self.shortcut = nn.Conv2d(inputs, width, 1) if inputs != width else nn.Identity()
        self.branch = nn.Sequential(
            batch_norm(inputs),
            nn.Conv2d(inputs, wide, 1, bias=False),
            batch_norm(wide),
            nn.GELU(),
            SameConv(wide, wide, 3, stride, groups=wide, bias=False),
            batch_norm(wide),
            nn.GELU(),
            SqueezeExcite(wide, width // 4) if excite else nn.Identity(),
            nn.Conv2d(wide, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.avg_pool2d(x, self.stride, ceil_mode=True) if self.stride > 1 else x
        return self.shortcut(pooled) + self.branch(x)


class MapAttention(nn.Module):
    """Self-attention of a map's positions, all or in windows."""

    def __init__(
        self, width: int, side: int, *, positions: bool, window: int | None, table_corners: bool = True
    ) -> None:
        super().__init__()
        self.window, self.table_corners, self.norm = window, table_corners, nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        shape = (width // HEAD_WIDTH, 2 * side - 1, 2 * side - 1)
        self.table = nn.Parameter(nn.init.trunc_normal_(torch.empty(shape), std=0.02)) if positions else None

    def forward(self, x_BCYX: Tensor) -> Tensor:
        h = self.norm(x_BCYX.movedim(1, -1))
        q, k, v = (part(h).unflatten(-1, (-1, HEAD_WIDTH)) for part in (self.query, self.key, self.value))
        rows, columns = x_BCYX.shape[2:]
        window = (rows, columns) if self.window is None else (min(self.window, rows), min(self.window, columns))
        bias = None if self.table is None else relative_bias(self.table, window, corners=self.table_corners)
        out = window_attention(q, k, v, window=window, bias=bias)
        return x_BCYX + self.out(out.flatten(-2)).movedim(-1, 1)


class Moat(nn.Module):
    """Logits from pictures (B, C, Y, X) of any size.

    >>> model = Moat(MoatConfig(stem=8, widths=(16, 32), depths=(1, 1), attention=(1,), picture=16, classes=5))
    >>> model(torch.zeros(2, 3, 16, 16)).shape
    torch.Size([2, 5])
    """

    def __init__(self, config: MoatConfig) -> None:
        super().__init__()
        self.config = config
        stem = config.stem
        layers: list[nn.Module] = [
            SameConv(config.channels, stem, 3, 2),
            batch_norm(stem),
            nn.GELU(),
            SameConv(stem, stem, 3),
        ]
        inputs = stem
        for stage, (width, depth) in enumerate(zip(config.widths, config.depths, strict=True)):
            attends = stage in config.attention
            window = config.window[config.attention.index(stage)] if attends and config.window else None
            for block in range(depth):
                layers.append(MobileConv(inputs, width, 1 if block else 2, excite=not attends))
                inputs = width
                if attends:
                    side = -(-config.picture // 2 ** (stage + 2))
                    layers.append(
                        MapAttention(
                            width,
                            side,
                            positions=config.positions,
                            window=window,
                            table_corners=config.table_corners,
                        )
                    )
        self.layers = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.LayerNorm(inputs), nn.Linear(inputs, config.classes))
        self.apply(_draw)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """(B, classes)."""
        return self.head(self.layers(x_BCYX).mean((2, 3)))


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """With the constants of the published code."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def _draw(module: nn.Module) -> None:
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _sizes() -> dict[str, Size]:
    rows = {
        "0": (64, 96, (2, 3, 7, 2), 27_846_892, 27_777_544, "27.8M"),
        "1": (64, 96, (2, 6, 14, 2), 41_598_448, 41_467_864, "41.6M"),
        "2": (128, 128, (2, 6, 14, 2), 73_422_408, 73_248_296, "73.4M"),
        "3": (160, 160, (2, 12, 28, 2), 189_958_040, 189_536_280, "190.0M"),
        "4": (256, 256, (2, 12, 28, 2), 483_214_184, 482_539_368, "483.2M"),
        "tiny-0": (32, 32, (2, 3, 7, 2), 3_355_348, 3_332_232, "3.4M"),
        "tiny-1": (40, 40, (2, 3, 7, 2), 5_122_895, 5_094_000, "5.1M"),
        "tiny-2": (56, 56, (2, 3, 7, 2), 9_772_741, 9_732_288, "9.8M"),
        "tiny-3": (80, 80, (2, 3, 7, 2), 19_534_390, 19_476_600, "19.5M"),
    }
    sizes = {}
    for name, (stem, width, depths, with_bias, without, said) in rows.items():
        widths = tuple(width * 2**stage for stage in range(4))
        for positions, parameters in ((True, with_bias), (False, without)):
            config = MoatConfig(stem=stem, widths=widths, depths=depths, positions=positions)
            label = name if positions else f"{name}-no-positions"
            sizes[label] = Size(config=config, parameters=parameters, said=said if positions else "not said")
    return sizes


MOAT = MODELS.add(
    "moat",
    Companion(
        title="MOAT: Alternating Mobile Convolution and Attention Brings Strong Vision Models",
        source="Yang et al., 2022, arXiv:2210.01820",
        summary="a pyramid of mobile convolutions and attention in one block",
        build=Moat,
        sizes=_sizes(),
        config=MoatConfig,
        toy=MoatConfig(stem=8, widths=(16, 32), depths=(1, 1), attention=(1,), picture=32, classes=5),
        example=lambda config: (picture_batch(config.picture, channels=config.channels),),
        done=(
            "the nine models, with and without relative positions",
            "windows for large pictures, tables resized",
            "weights of the published code, TensorFlow's checkpoints (`outpace.models.load_published`): create with "
            "table_corners=False, and with the picture of 224 that their tables are for, whatever pictures are read",
        ),
        left_out=(
            "stochastic depth and training on ImageNet",
            "detection and segmentation heads, for which the published code pools its shortcuts over 3 x 3",
        ),
        claim="mobile convolutions tell attention where it is: positions are hardly needed",
        limits=("a stride pads after the picture only, as the published weights expect: a mirrored picture differs",),
    ),
)
