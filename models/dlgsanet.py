"""DLGSANet: larger pictures by convolutions whose filters follow the pixels, and attention among channels.

Source: Li et al., 2023, arXiv:2301.02031.
Shapes: B batch, C channels, Y X grid, H heads, K width of a filter.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import ConfigError, UnknownNameError
from ..kernels.attention.channels import NORMALISERS, channel_attention
from ..kernels.convolution.dynamic import dynamic_depthwise_conv
from ..registry import suggestion
from .companion import MODELS, Companion, Size, check_divides, check_sizes
from .layers.pictures import ChannelNorm, depthwise
from .layers.restoration import GatedConvNetwork, Residual, Upsampler, mean_colour
from .numbers import picture_batch


@dataclass(frozen=True, kw_only=True, slots=True)
class DlgsanetConfig:
    """Sizes of a DLGSANet; the defaults are the paper's light one."""

    scale: int = 2
    """How many times larger pictures get."""
    width: int = 48
    """Channels."""
    groups: int = 4
    """Residual groups."""
    blocks: int = 3
    """Blocks of each group, each a local and a global layer."""
    heads: int = 6
    """Of channel attention."""
    filter_channels: int = 6
    """Channels that share a pixel's filter."""
    kernel: int = 7
    """Pixels of a side of a filter."""
    normaliser: str = "relu"
    """Of channel attention: "relu" (the paper's) or "softmax"."""
    tile: int | None = None
    """Pixels of a side of the tiles whose channels attend by themselves, as few as cover the picture; the paper takes
    96, 72 and 48 at x2, x3 and x4 when it tests. The whole picture where None."""

    def __post_init__(self) -> None:
        check_sizes(self)
        check_divides("width over heads", self.width, self.heads)
        check_divides("width over channels of a filter", self.width, self.filter_channels)
        if self.normaliser not in NORMALISERS:
            known = list(NORMALISERS)
            raise UnknownNameError(
                f"channel attention has no normaliser '{self.normaliser}'{suggestion(self.normaliser, known)}"
            )
        if self.kernel % 2 == 0:
            raise ConfigError(f"a DLGSANet has an odd kernel, not {self.kernel}")


class DynamicConv(nn.Module):
    """A depthwise convolution whose filters a small network makes of every pixel's surroundings."""

    def __init__(self, config: DlgsanetConfig) -> None:
        super().__init__()
        width, self.kernel = config.width, config.kernel
        squeezed, self.groups = width // 4, width // config.filter_channels
        self.before, self.after = (nn.Conv2d(width, width, 1, bias=False) for _ in range(2))
        self.filters = nn.Sequential(
            nn.Conv2d(width, squeezed, 1),
            depthwise(squeezed, config.kernel),
            nn.Conv2d(squeezed, config.kernel**2 * self.groups, 1),
        )

    def forward(self, x_BCYX: Tensor) -> Tensor:
        h = self.before(x_BCYX)
        weight = self.filters(h).unflatten(1, (self.groups, self.kernel, self.kernel))
        return self.after(dynamic_depthwise_conv(h, weight))


class ChannelAttention(nn.Module):
    """Channels that attend to channels."""

    def __init__(self, config: DlgsanetConfig) -> None:
        super().__init__()
        width, self.normaliser, self.tile = config.width, config.normaliser, config.tile
        self.temperature_H = nn.Parameter(torch.ones(config.heads))
        self.query_key_value = nn.Conv2d(width, 3 * width, 1, bias=False)
        self.mix = depthwise(3 * width, 3, bias=False)
        self.out = nn.Conv2d(width, width, 1, bias=False)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        mixed = self.mix(self.query_key_value(x_BCYX))
        return self.out(self.attend(mixed) if self.tile is None else self.in_tiles(mixed, self.tile))

    def attend(self, mixed_BCYX: Tensor) -> Tensor:
        """Over all positions at once."""
        q, k, v = mixed_BCYX.flatten(2).unflatten(1, (3, len(self.temperature_H), -1)).unbind(1)
        out = channel_attention(q, k, v, self.temperature_H, normaliser=self.normaliser)
        return out.flatten(1, 2).unflatten(-1, mixed_BCYX.shape[2:])

    def in_tiles(self, mixed_BCYX: Tensor, tile: int) -> Tensor:
        """Over each tile by itself; where tiles overlap, what they make there is averaged, all alike."""
        rows, columns = (min(tile, length) for length in mixed_BCYX.shape[2:])
        places = [
            (slice(top, top + rows), slice(left, left + columns))
            for top in spread(mixed_BCYX.shape[2], rows)
            for left in spread(mixed_BCYX.shape[3], columns)
        ]
        made = self.attend(torch.cat([mixed_BCYX[:, :, down, across] for down, across in places]))
        total = mixed_BCYX.new_zeros(len(mixed_BCYX), made.shape[1], *mixed_BCYX.shape[2:])
        count = mixed_BCYX.new_zeros(mixed_BCYX.shape[2:])
        for (down, across), part in zip(places, made.chunk(len(places)), strict=True):
            total[:, :, down, across] += part
            count[down, across] += 1
        return total / count


def spread(length: int, tile: int) -> list[int]:
    """Where tiles begin that cover a length: as few as can be, evenly apart, the last one ending with it.

    >>> spread(10, 5), spread(10, 4), spread(7, 7)
    ([0, 5], [0, 3, 6], [0])
    """
    count = -(-length // tile)
    apart = -(-(length - tile) // max(1, count - 1))
    return [min(i * apart, length - tile) for i in range(count)]


class DlgsanetLayer(nn.Module):
    """A mixer of pixels or of channels, then the gated network, both with norms before and residuals."""

    def __init__(self, mixer: nn.Module, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.mixer = ChannelNorm(width), ChannelNorm(width), mixer
        self.network = GatedConvNetwork(width, 2 * width)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        x = x_BCYX + self.mixer(self.norm1(x_BCYX))
        return x + self.network(self.norm2(x))


class Dlgsanet(nn.Module):
    """Pictures (B, 3, Y, X) in [0, 1], `scale` times larger; any size.

    >>> model = Dlgsanet(DlgsanetConfig(width=12, groups=1, blocks=1, scale=3))
    >>> model(torch.zeros(1, 3, 6, 5)).shape
    torch.Size([1, 3, 18, 15])
    """

    def __init__(self, config: DlgsanetConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.first = nn.Conv2d(3, width, 3, padding=1, bias=False)
        groups: list[nn.Module] = []
        for _ in range(config.groups):
            layers: list[nn.Module] = []
            for _ in range(config.blocks):
                layers += [
                    DlgsanetLayer(DynamicConv(config), width),
                    DlgsanetLayer(ChannelAttention(config), width),
                ]
            groups.append(Residual(*layers, nn.Conv2d(width, width, 3, padding=1)))
        self.body = Residual(*groups, nn.Conv2d(width, width, 3, padding=1))
        self.last = Upsampler(width, config.scale)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """(B, 3, scale Y, scale X)."""
        mean = mean_colour(x_BCYX)
        return self.last(self.body(self.first(x_BCYX - mean))) + mean


def _sizes() -> dict[str, Size]:
    rows = {
        "large": (90, 6, 4, (4_733_724, 4_745_889, 4_762_920), ("4.73M", "4.74M", "4.76M")),
        "light": (48, 4, 3, (745_188, 751_683, 760_776), ("745K", "752K", "761K")),
        "tiny": (48, 3, 3, (565_710, 572_205, 581_298), ("566K", "572K", "581K")),
    }
    sizes = {}
    for name, (width, groups, blocks, counts, said) in rows.items():
        for scale, parameters, words in zip((2, 3, 4), counts, said, strict=True):
            config = DlgsanetConfig(scale=scale, width=width, groups=groups, blocks=blocks)
            sizes[f"{name}-x{scale}"] = Size(config=config, parameters=parameters, said=words)
    return sizes


DLGSANET = MODELS.add(
    "dlgsanet",
    Companion(
        title="DLGSANet: Lightweight Dynamic Local and Global Self-Attention Networks for Image Super-Resolution",
        source="Li et al., 2023, arXiv:2301.02031",
        summary="super-resolution by filters that follow the pixels and sparse attention among channels",
        build=Dlgsanet,
        sizes=_sizes(),
        config=DlgsanetConfig,
        toy=DlgsanetConfig(width=12, groups=1, blocks=1, heads=2, filter_channels=3),
        example=lambda config: (picture_batch(9, 12),),
        done=(
            "weights of the published code (`outpace.models.load_published`); its tests tile: tile=96, 72 or 48",
            "the three models at three scales",
            "attention in tiles, beside each other as in the published tests, for any batch",
        ),
        left_out=("training on DIV2K",),
        claim="attention among channels with a ReLU is better than with a softmax",
        limits=("a training from scratch stays below bicubic for long: start from bicubic and learn what is missing",),
    ),
)
