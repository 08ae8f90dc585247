"""HorNet: a pyramid whose mixer multiplies features by one convolved gate after another.

Source: Rao et al., 2022, arXiv:2207.14284.
Shapes: B batch, C channels, Y X grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ..kernels.convolution.recursive import recursive_gating
from .companion import MODELS, Companion, Size, check_divides, check_sizes
from .layers.pictures import ChannelNorm, depthwise, drawn_normal
from .numbers import picture_batch


@dataclass(frozen=True, kw_only=True, slots=True)
class HorNetConfig:
    """Sizes of a HorNet; the defaults are the paper's tiny one."""

    width: int = 64
    """Channels of the first stage; each further stage has twice as many."""
    depths: tuple[int, ...] = (2, 3, 18, 2)
    """Blocks of each stage."""
    orders: tuple[int, ...] = (2, 3, 4, 5)
    """Gates of each stage's mixer."""
    global_filters: bool = False
    """Whether half of the gates of the stages after the second are filtered in the frequency domain (GF)."""
    picture: int = 224
    """Pixels of a side, which sizes the global filters; pictures of other sizes get resized filters."""
    channels: int = 3
    """Of a picture."""
    classes: int = 1000
    """Logits."""

    def __post_init__(self) -> None:
        check_sizes(self)
        if not self.depths or len(self.depths) != len(self.orders):
            raise ConfigError(f"a HorNet has a depth and an order for each stage, not {self.depths} and {self.orders}")
        for stage, order in enumerate(self.orders):
            filtered = self.global_filters and stage >= 2  # in halves, the narrowest gate's channels too
            halvings = order if filtered else order - 1
            check_divides(f"channels of stage {stage + 1} over halvings", self.width * 2**stage, 2**halvings)
        if self.picture < 4 * 2 ** (len(self.depths) - 1):
            raise ConfigError(f"a picture of {self.picture} pixels has nothing left at stage {len(self.depths)}")


class GlobalLocalFilter(nn.Module):
    """Half of the channels through a small convolution, half through a filter as large as the picture."""

    def __init__(self, channels: int, rows: int, columns: int) -> None:
        super().__init__()
        half = channels // 2
        self.before, self.after = ChannelNorm(channels, eps=1e-6), ChannelNorm(channels, eps=1e-6)
        self.local = depthwise(half, 3, bias=False)
        self.spectrum = nn.Parameter(nn.init.trunc_normal_(torch.empty(half, rows, columns, 2), std=0.02))

    def forward(self, x_BCYX: Tensor) -> Tensor:
        near, far = self.before(x_BCYX).chunk(2, 1)
        both = torch.stack([self.local(near), self.filtered(far)], 2).flatten(1, 2)  # one of each in turn
        return self.after(both)

    def filtered(self, x_BCYX: Tensor) -> Tensor:
        """Multiplied by the spectrum, in float32 or more."""
        wanted = (x_BCYX.shape[2], x_BCYX.shape[3] // 2 + 1)
        wide = torch.promote_types(x_BCYX.dtype, torch.float32)
        spectrum = self.spectrum.to(wide)
        if tuple(spectrum.shape[1:3]) != wanted:
            resized = F.interpolate(spectrum.permute(3, 0, 1, 2), wanted, mode="bilinear", align_corners=True)
            spectrum = resized.permute(1, 2, 3, 0)
        transformed = torch.fft.rfft2(x_BCYX.to(wide), norm="ortho") * torch.view_as_complex(spectrum.contiguous())
        return torch.fft.irfft2(transformed, x_BCYX.shape[2:], norm="ortho").to(x_BCYX.dtype)


class RecursiveGatedConv(nn.Module):
    """The mixer g^n: of degree order + 1 in its input."""

    SCALE = 1 / 3

    def __init__(self, channels: int, order: int, filters: nn.Module | None = None) -> None:
        super().__init__()
        self.widths = [channels // 2 ** (order - 1 - k) for k in range(order)]
        self.project = nn.Conv2d(channels, 2 * channels, 1)
        self.filter = depthwise(sum(self.widths), 7) if filters is None else filters
        self.mixes = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in pairwise(self.widths))
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        first, gates = self.project(x_BCYX).split([self.widths[0], sum(self.widths)], 1)
        gates = (self.filter(gates) * self.SCALE).split(self.widths, 1)
        mixes = [(mix.weight[..., 0, 0], mix.bias) for mix in self.mixes if isinstance(mix, nn.Conv2d)]
        return self.out(recursive_gating(first, gates, mixes))


class HorNetBlock(nn.Module):
    """The mixer, then a feed-forward network, each scaled channel by channel."""

    def __init__(self, channels: int, mixer: nn.Module) -> None:
        super().__init__()
        self.norm1, self.norm2 = ChannelNorm(channels, eps=1e-6), nn.LayerNorm(channels, eps=1e-6)
        self.mixer = mixer
        self.feed_forward = nn.Sequential(
            nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels)
        )
        self.scale1 = nn.Parameter(torch.full((channels, 1, 1), 1e-6))
        self.scale2 = nn.Parameter(torch.full((channels,), 1e-6))

    def forward(self, x_BCYX: Tensor) -> Tensor:
        x = x_BCYX + self.scale1 * self.mixer(self.norm1(x_BCYX))
        x = x.movedim(1, -1)
        return (x + self.scale2 * self.feed_forward(self.norm2(x))).movedim(-1, 1)


class HorNet(nn.Module):
    """Logits from pictures (B, C, Y, X), sides multiples of 4 * 2^(stages - 1).

    >>> model = HorNet(HorNetConfig(width=16, depths=(1, 1), orders=(2, 3), classes=5))
    >>> model(torch.zeros(2, 3, 16, 16)).shape
    torch.Size([2, 5])
    """

    def __init__(self, config: HorNetConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.width * 2**stage for stage in range(len(config.depths))]
        layers: list[nn.Module] = [nn.Conv2d(config.channels, widths[0], 4, 4), ChannelNorm(widths[0], eps=1e-6)]
        for stage, (width, depth, order) in enumerate(zip(widths, config.depths, config.orders, strict=True)):
            if stage:
                layers += [ChannelNorm(width // 2, eps=1e-6), nn.Conv2d(width // 2, width, 2, 2)]
            rows = config.picture // 2 ** (stage + 2)
            for _ in range(depth):
                mixer = RecursiveGatedConv(width, order)
                if config.global_filters and stage > 1:
                    mixer.filter = GlobalLocalFilter(sum(mixer.widths), rows, rows // 2 + 1)
                layers.append(HorNetBlock(width, mixer))
        self.layers = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.LayerNorm(widths[-1], eps=1e-6), nn.Linear(widths[-1], config.classes))
        self.apply(drawn_normal)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """(B, classes)."""
        return self.head(self.layers(x_BCYX).mean((2, 3)))


HORNET = MODELS.add(
    "hornet",
    Companion(
        title="HorNet: Efficient High-Order Spatial Interactions with Recursive Gated Convolutions",
        source="Rao et al., 2022, arXiv:2207.14284",
        summary="a pyramid of recursive gated convolutions: interactions of a chosen order at a convolution's cost",
        build=HorNet,
        sizes={
            "tiny": Size(config=HorNetConfig(), parameters=22_409_512, said="22M"),
            "tiny-gf": Size(config=HorNetConfig(global_filters=True), parameters=22_991_848, said="23M"),
            "small": Size(config=HorNetConfig(width=96), parameters=49_528_264, said="50M"),
            "small-gf": Size(config=HorNetConfig(width=96, global_filters=True), parameters=50_401_768, said="50M"),
            "base": Size(config=HorNetConfig(width=128), parameters=87_256_680, said="87M"),
            "base-gf": Size(config=HorNetConfig(width=128, global_filters=True), parameters=88_421_352, said="88M"),
            "large": Size(config=HorNetConfig(width=192), parameters=194_542_504, said="195M"),
            "large-gf": Size(config=HorNetConfig(width=192, global_filters=True), parameters=196_289_512, said="196M"),
            "large-gf-384": Size(
                config=HorNetConfig(width=192, global_filters=True, picture=384), parameters=201_806_824, said="202M"
            ),
        },
        config=HorNetConfig,
        toy=HorNetConfig(width=16, depths=(1, 1, 1), orders=(2, 3, 3), global_filters=True, picture=32, classes=5),
        example=lambda config: (picture_batch(config.picture, channels=config.channels),),
        done=(
            "weights of the published code (`outpace.models.load_published`)",
            "the model with 7 x 7 convolutions and with global filters",
            "global filters resized to other pictures",
        ),
        left_out=("stochastic depth and training on ImageNet", "detection and segmentation heads"),
        claim="a mixer of order n captures interactions of order n + 1, and none above",
        limits=("order n is degree n + 1 in the mixer's input only: the norm of the global filters ends that",),
    ),
)
