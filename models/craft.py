"""CRAFT: larger pictures from low frequencies by attention in windows and high ones by pooling, mixed among channels.

Source: Li et al., 2023, arXiv:2308.05022.
Shapes: B batch, C channels, Y X grid, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ..kernels.attention.channels import channel_attention
from ..kernels.attention.windows import Pair, relative_bias, window_attention
from .companion import MODELS, Companion, Size, check_divides, check_sizes
from .layers.pictures import ChannelNorm, depthwise, reflected
from .layers.restoration import GatedConvNetwork, Residual, Upsampler, mean_colour
from .numbers import picture_batch


@dataclass(frozen=True, kw_only=True, slots=True)
class CraftConfig:
    """Sizes of a CRAFT; the defaults are the paper's."""

    scale: int = 2
    """How many times larger pictures get."""
    width: int = 48
    """Channels."""
    groups: int = 4
    """Residual groups."""
    blocks: int = 2
    """Blocks of each group."""
    heads: int = 6
    """Of attention in windows, half of them in each orientation, and among channels."""
    window: tuple[int, int] = (4, 16)
    """Rows and columns of half of the heads' windows; the other half has them exchanged."""
    masked: bool = False
    """Whether shifted windows keep opposite borders of the picture apart; the published weights do not."""
    high_frequencies: bool = True
    """Whether the query among channels comes from the high frequencies; without, from the picture itself."""

    def __post_init__(self) -> None:
        check_sizes(self)
        check_divides("width over heads", self.width, self.heads)
        check_divides("heads over orientations of windows", self.heads, 2)
        if len(self.window) != 2:
            raise ConfigError(f"windows of a CRAFT have rows and columns, not {self.window}")


class PositionNetwork(nn.Module):
    """A bias for the offset between two positions, from its rows and columns by a network."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2, width),
            *(part for _ in range(2) for part in (nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, width))),
            nn.LayerNorm(width),
            nn.ReLU(),
            nn.Linear(width, heads),
        )

    def forward(self, window: Pair) -> Tensor:
        """(H, P, P)."""
        like = next(self.parameters())
        down, right = (torch.arange(1 - n, n, device=like.device, dtype=like.dtype) for n in window)
        offsets = torch.stack(torch.meshgrid(down, right, indexing="ij"), -1)
        return relative_bias(self.layers(offsets).permute(2, 0, 1), window)


class WindowLayer(nn.Module):
    """Attention in lying windows for half of the channels and in standing ones for the others, then an MLP."""

    def __init__(self, config: CraftConfig, *, shifted: bool) -> None:
        super().__init__()
        width, half = config.width, config.width // 2
        self.heads, self.window, self.masked, self.shifted = config.heads, config.window, config.masked, shifted
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.local = depthwise(width, 3)
        narrow = max(1, half // 16)
        self.positions = nn.ModuleList(PositionNetwork(narrow, config.heads // 2) for _ in range(2))
        self.network = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x_BCYX: Tensor) -> Tensor:
        x = x_BCYX.movedim(1, -1)
        x = x + self.out(self.attend(self.norm1(x)))
        return (x + self.network(self.norm2(x))).movedim(-1, 1)

    def attend(self, x_BYXC: Tensor) -> Tensor:
        """Both halves, and a convolution of the values."""
        q, k, v = self.query_key_value(x_BYXC).unflatten(-1, (3, self.heads, -1)).unbind(3)
        half, outs, standing = self.heads // 2, [], (self.window[1], self.window[0])
        for positions, window, here in zip(
            self.positions, (self.window, standing), (slice(half), slice(half, None)), strict=True
        ):
            outs.append(
                window_attention(
                    q[..., here, :],
                    k[..., here, :],
                    v[..., here, :],
                    window=window,
                    shift=(window[0] // 2, window[1] // 2) if self.shifted else (0, 0),
                    bias=positions(window),
                    masked=self.masked,
                )
            )
        local = self.local(v.flatten(-2).movedim(-1, 1)).movedim(1, -1)
        return torch.cat(outs, -2).flatten(-2) + local


class HighFrequencies(nn.Module):
    """Half of the channels through a convolution, half through the largest of their neighbours."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.local, self.largest = nn.Conv2d(half, half, 3, padding=1), nn.Conv2d(half, half, 1)
        self.out = nn.Conv2d(width, width, 1)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        near, sharp = x_BCYX.chunk(2, 1)
        sharp = self.largest(F.max_pool2d(sharp, 3, 1, 1))
        return x_BCYX + self.out(torch.cat([F.gelu(self.local(near)), F.gelu(sharp)], 1))


class Fusion(nn.Module):
    """Attention among channels whose query is the high frequencies, then the gated network."""

    def __init__(self, config: CraftConfig) -> None:
        super().__init__()
        width = config.width
        self.temperature_H = nn.Parameter(torch.ones(config.heads))
        self.norm1, self.norm2 = ChannelNorm(width), ChannelNorm(width)
        self.query = nn.Sequential(nn.Conv2d(width, width, 1, bias=False), depthwise(width, 3, bias=False))
        self.key_value = nn.Sequential(nn.Conv2d(width, 2 * width, 1, bias=False), depthwise(2 * width, 3, bias=False))
        self.out = nn.Conv2d(width, width, 1, bias=False)
        self.network = GatedConvNetwork(width, int(width * 2.66))

    def forward(self, low_BCYX: Tensor, high_BCYX: Tensor) -> Tensor:
        heads, size = len(self.temperature_H), low_BCYX.shape[2:]
        k, v = self.key_value(self.norm1(low_BCYX)).flatten(2).unflatten(1, (2, heads, -1)).unbind(1)
        q = self.query(high_BCYX).flatten(2).unflatten(1, (heads, -1))
        out = channel_attention(q, k, v, self.temperature_H).flatten(1, 2).unflatten(-1, size)
        x = low_BCYX + self.out(out)
        return x + self.network(self.norm2(x))


class CraftBlock(nn.Module):
    """Low and high frequencies of the same picture, fused."""

    def __init__(self, config: CraftConfig) -> None:
        super().__init__()
        self.low = nn.Sequential(WindowLayer(config, shifted=False), WindowLayer(config, shifted=True))
        self.high = HighFrequencies(config.width) if config.high_frequencies else nn.Identity()
        self.fusion = Fusion(config)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        return self.fusion(self.low(x_BCYX), self.high(x_BCYX))


class Craft(nn.Module):
    """Pictures (B, 3, Y, X) in [0, 1], `scale` times larger; any size above half a window.

    >>> model = Craft(CraftConfig(width=12, groups=1, blocks=1, heads=2, scale=3))
    >>> model(torch.zeros(1, 3, 16, 20)).shape
    torch.Size([1, 3, 48, 60])
    """

    def __init__(self, config: CraftConfig) -> None:
        super().__init__()
        width, self.config = config.width, config
        self.first = nn.Conv2d(3, width, 3, padding=1)
        groups = [
            Residual(*(CraftBlock(config) for _ in range(config.blocks)), nn.Conv2d(width, width, 3, padding=1))
            for _ in range(config.groups)
        ]
        self.body = Residual(*groups, ChannelNorm(width), nn.Conv2d(width, width, 3, padding=1))
        self.last = Upsampler(width, config.scale)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """(B, 3, scale Y, scale X).

        Raises: ConfigError: a picture too small to be padded to whole windows by reflection.
        """
        rows, columns = x_BCYX.shape[2:]
        multiple, scale = max(self.config.window), self.config.scale
        if any(-side % multiple >= side for side in (rows, columns)):
            raise ConfigError(f"sides of a picture must be more than {multiple // 2} pixels, not {rows} x {columns}")
        mean = mean_colour(x_BCYX)
        out = self.last(self.body(self.first(reflected(x_BCYX, multiple) - mean))) + mean
        return out[..., : rows * scale, : columns * scale]


CRAFT = MODELS.add(
    "craft",
    Companion(
        title="Feature Modulation Transformer: Cross-Refinement of Global Representation via High-Frequency Prior",
        source="Li et al., 2023, arXiv:2308.05022",
        summary="super-resolution by attention in long windows, with the high frequencies as query among channels",
        build=Craft,
        sizes={
            "x2": Size(config=CraftConfig(), parameters=737_756, said="737K"),
            "x3": Size(config=CraftConfig(scale=3), parameters=744_251, said="744K"),
            "x4": Size(config=CraftConfig(scale=4), parameters=753_344, said="753K"),
        },
        config=CraftConfig,
        toy=CraftConfig(width=12, groups=1, blocks=1, heads=2, window=(2, 8)),
        example=lambda config: (picture_batch(16, 24),),
        done=(
            "weights of the published code (`outpace.models.load_published`)",
            "the model at three scales",
            "windows with and without a mask",
            "the ablation without high frequencies",
        ),
        left_out=("training on DIV2K", "quantisation after training"),
        claim="high frequencies as the query refine what attention in windows finds",
        limits=(
            "at the paper's width the network for positions is one unit wide, and a norm of one number is 0: its bias "
            "is the same for every offset, so that attention in windows knows no positions",
            "shifted windows see opposite borders of the picture, as the published weights expect",
        ),
    ),
)
