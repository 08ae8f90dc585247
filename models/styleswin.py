"""StyleSwin: a generator of window attention whose every block is styled, and a critic that looks at wavelets.

Source: Zhang et al., 2022, arXiv:2112.10762.
Shapes: B batch, C channels, Y X picture or grid, S numbers of a style.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ..kernels.attention.windows import relative_bias, window_attention
from ..kernels.wavelets import haar
from .companion import MODELS, Companion, Size, check_divides, check_sizes
from .layers.adversarial import FIR, ScaledConv, ScaledLinear, resampled
from .numbers import numbers


@dataclass(frozen=True, kw_only=True, slots=True)
class StyleSwinConfig:
    """Sizes of a StyleSwin; the defaults are the paper's for 1024 x 1024 pixels."""

    widths: tuple[int, ...] = (512, 512, 512, 512, 256, 128, 64, 32, 16)
    """Channels at sides of 4, 8, 16 and so on; the last one's side is the picture's."""
    style: int = 512
    """Numbers of a style, and of the noise that it is made of."""
    mapping: int = 8
    """Layers that make a style of noise."""
    window: int = 8
    """Positions of a window's side, where the grid is larger."""
    expansion: int = 4
    """Hidden units of a feed-forward network over its channels."""
    colours: int = 3
    """Of a picture."""
    wavelets: bool = True
    """Whether the critic looks at Haar wavelets; at pixels if not, as StyleGAN's does."""

    def __post_init__(self) -> None:
        check_sizes(self)
        if len(self.widths) < 3 or self.window % 2:
            raise ConfigError(
                f"a StyleSwin has at least three widths and windows of an even side, not {self.widths} and "
                f"{self.window}"
            )
        for width in self.widths:
            check_divides(f"{width} channels over quarters", width, 4)
            check_divides(f"{width} channels over heads", width, self.heads(width))
            if width < 8:
                raise ConfigError(f"positions need at least 8 channels, not {width}")

    @property
    def picture(self) -> int:
        """Pixels of a side."""
        return 4 * 2 ** (len(self.widths) - 1)

    def heads(self, width: int) -> int:
        """Heads of a block with so many channels, of which half see shifted windows."""
        return max(width // 32, 4)


class StyledNorm(nn.Module):
    """AdaIN: each channel of each picture to mean 0 and deviation 1, then to what the style says.

    There is no 1 + in front of the style's factor: it works because its weights are drawn with deviation 1.
    """

    def __init__(self, channels: int, style: int) -> None:
        super().__init__()
        self.style = ScaledLinear(style, 2 * channels)

    def forward(self, x_BYXC: Tensor, style_BS: Tensor) -> Tensor:
        factor, offset = self.style(style_BS)[:, None, None].chunk(2, -1)
        variance, mean = torch.var_mean(x_BYXC, (1, 2), correction=0, keepdim=True)
        return factor * (x_BYXC - mean) * (variance + 1e-5).rsqrt() + offset


class StyledBlock(nn.Module):
    """Attention in windows for half of the heads and in shifted ones for the others, then a feed-forward network."""

    def __init__(self, channels: int, side: int, config: StyleSwinConfig) -> None:
        super().__init__()
        self.half_heads = config.heads(channels) // 2
        self.window = min(side, config.window)
        self.shift = self.window // 2 if side > config.window else 0
        self.norm1, self.norm2 = (StyledNorm(channels, config.style) for _ in range(2))
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        offsets = 2 * self.window - 1
        self.tables = nn.ParameterList(
            nn.init.trunc_normal_(torch.empty(self.half_heads, offsets, offsets), std=0.02) for _ in range(2)
        )
        self.up = nn.Linear(channels, config.expansion * channels)
        self.down = nn.Linear(config.expansion * channels, channels)

    def forward(self, x_BYXC: Tensor, style_BS: Tensor) -> Tensor:
        x = x_BYXC + self.out(self.attended(self.norm1(x_BYXC, style_BS)))
        return x + self.down(F.gelu(self.up(self.norm2(x, style_BS))))

    def attended(self, x_BYXC: Tensor) -> Tensor:
        """The channels of plain windows, then those of shifted ones."""
        parts = self.qkv(x_BYXC).unflatten(-1, (3, 2, self.half_heads, -1))
        window = (self.window, self.window)
        seen = []
        for part, (table, shift) in enumerate(zip(self.tables, (0, -self.shift), strict=True)):
            q, k, v = parts[..., part, :, :].unbind(3)
            bias = relative_bias(table, window)
            seen.append(window_attention(q, k, v, window=window, shift=(-shift, -shift), bias=bias).flatten(3))
        return torch.cat(seen, -1)


class Upsample(nn.Module):
    """A grid of twice the side and other channels, which is told where it is."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.norm, self.reduce = nn.LayerNorm(channels), nn.Linear(channels, out, bias=False)
        self.strength = nn.Parameter(torch.zeros(1))

    def forward(self, x_BYXC: Tensor) -> Tensor:
        x = F.interpolate(x_BYXC.movedim(-1, 1), scale_factor=2, mode="bilinear").movedim(1, -1)
        x = self.reduce(self.norm(x))
        return x + self.strength * positions(x.shape[1], x.shape[2], x.shape[3]).to(x)


def positions(rows: int, columns: int, channels: int) -> Tensor:
    """(rows, columns, channels) in float64: sines and cosines of the column, then of the row, both counted from 1."""
    count = channels // 4
    frequencies = torch.exp(torch.arange(count, dtype=torch.float64) * (-math.log(10_000) / (count - 1)))

    def axis(size: int) -> Tensor:
        angles = torch.arange(1, size + 1, dtype=torch.float64)[:, None] * frequencies
        return torch.cat([angles.sin(), angles.cos()], -1)

    of_column, of_row = axis(columns)[None], axis(rows)[:, None]
    return torch.cat([of_column.expand(rows, -1, -1), of_row.expand(-1, columns, -1)], -1)


class StyleSwin(nn.Module):
    """Pictures (B, colours, Y, X) of about -1 to 1 from noise (B, S).

    >>> model = StyleSwin(StyleSwinConfig(widths=(16, 16, 8), style=12, mapping=2, window=4))
    >>> model(torch.zeros(2, 12)).shape
    torch.Size([2, 3, 16, 16])
    """

    def __init__(self, config: StyleSwinConfig) -> None:
        super().__init__()
        self.config = config
        self.start = nn.Parameter(torch.randn(4, 4, config.widths[0]))
        self.mapping = nn.ModuleList(ScaledLinear(config.style, config.style, rate=0.01) for _ in range(config.mapping))
        self.blocks, self.upsamples, self.colours = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(config.widths):
            side = 4 * 2**level
            self.blocks.extend(StyledBlock(width, side, config) for _ in range(2))
            out = width
            if side < config.picture:
                out = config.widths[level + 1]
                self.upsamples.append(Upsample(width, out))
            self.colours.append(nn.Conv2d(out, config.colours, 1))
        # published weights have a second offset of the colours beside the convolutions' own
        self.offsets = nn.Parameter(torch.zeros(len(config.widths), config.colours))
        self.apply(_drawn)

    def style_of(self, noise_BS: Tensor) -> Tensor:
        """(B, S)."""
        style = noise_BS * (noise_BS.square().mean(-1, keepdim=True) + 1e-8).rsqrt()
        for layer in self.mapping:
            style = F.leaky_relu(layer(style), 0.2) * 2**0.5
        return style

    def forward(self, noise_BS: Tensor) -> Tensor:
        if noise_BS.ndim != 2 or noise_BS.shape[1] != self.config.style:
            raise ConfigError(f"noise has the shape (batch, {self.config.style}), not {tuple(noise_BS.shape)}")
        style = self.style_of(noise_BS)
        x = self.start.expand(len(style), -1, -1, -1)
        picture: Tensor | None = None
        for level, to_colours in enumerate(self.colours):
            for block in self.blocks[2 * level : 2 * level + 2]:
                x = block(x, style)
            grows = level < len(self.upsamples)
            x = self.upsamples[level](x) if grows else x
            made = to_colours(x.movedim(-1, 1)) + self.offsets[level][:, None, None]
            if picture is not None:
                # at the last side the picture has its size already
                made = made + (resampled(picture, FIR, up=2) if grows else picture)
            picture = made
        assert picture is not None
        return picture


class ConvBlock(nn.Module):
    """Two convolutions, of which the second halves the grid."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.first, self.second = ScaledConv(channels, channels, 3), ScaledConv(channels, out, 3, halves=True)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        return self.second(self.first(x_BCYX))


class Critic(nn.Module):
    """A number for each picture (B, colours, Y, X): how real it looks.

    >>> Critic(StyleSwinConfig(widths=(16, 16, 8), style=12))(torch.zeros(4, 3, 16, 16)).shape
    torch.Size([4, 1])
    """

    GROUP = 4
    """Pictures whose spread is told to the critic."""

    def __init__(self, config: StyleSwinConfig) -> None:
        super().__init__()
        self.config = config
        # wavelets are of half the side, and the width of the side between is not used
        below = config.widths[-2::-1] if not config.wavelets else config.widths[-3::-1]
        widths = [config.widths[-1], *below]
        bands = config.colours * (4 if config.wavelets else 1)
        self.looks = nn.ModuleList(ScaledConv(bands, width, 1) for width in widths)
        self.blocks = nn.ModuleList(ConvBlock(a, b) for a, b in pairwise(widths))
        self.last = ScaledConv(widths[-1] + 1, widths[-1], 3)
        self.hidden, self.out = ScaledLinear(16 * widths[-1], widths[-1]), ScaledLinear(widths[-1], 1)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        expected = (self.config.colours, self.config.picture, self.config.picture)
        if tuple(x_BCYX.shape[1:]) != expected:
            raise ConfigError(f"this critic looks at pictures (batch, {expected}), not {tuple(x_BCYX.shape)}")
        picture, x = x_BCYX, None
        for level, look in enumerate(self.looks):
            # the first level's wavelets are the picture's own, the others' those of a smaller one
            picture = resampled(picture, FIR, down=2) if level else picture
            seen = look(haar(picture) if self.config.wavelets else picture)
            x = seen if x is None else seen + x
            x = self.blocks[level](x) if level < len(self.blocks) else x
        assert x is not None
        group = min(len(x), self.GROUP)
        if len(x) % group:
            raise ConfigError(f"pictures come in batches of up to {self.GROUP} or a multiple of it, not {len(x)}")
        spread = (x.unflatten(0, (group, -1)).var(0, correction=0) + 1e-8).sqrt().mean((1, 2, 3))
        told = spread.repeat(group)[:, None, None, None].expand(-1, 1, *x.shape[2:])
        x = self.last(torch.cat([x, told], 1)).flatten(1)
        return self.out(F.leaky_relu(self.hidden(x), 0.2) * 2**0.5)


def critic_loss(real: Tensor, made: Tensor) -> Tensor:
    """From what the critic says of real and of made pictures: logistic."""
    return F.softplus(-real).mean() + F.softplus(made).mean()


def generator_loss(made: Tensor) -> Tensor:
    """From what the critic says of made pictures: logistic, not saturating."""
    return F.softplus(-made).mean()


def gradient_penalty(critic: nn.Module, real_BCYX: Tensor) -> Tensor:
    """R1: the mean square of the critic's gradient at real pictures (Mescheder et al., 2018)."""
    real = real_BCYX.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(real).sum(), real, create_graph=True)
    return gradient.flatten(1).square().sum(1).mean()


def _drawn(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        nn.init.xavier_normal_(module.weight, gain=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def widths_of(picture: int, multiplier: int) -> tuple[int, ...]:
    """The published widths for pictures of a side; `multiplier` is 2 up to 256 pixels and 1 for 1024."""
    widths = (512, 512, 512, 512, *(size * multiplier for size in (256, 128, 64, 32, 16)))
    return widths[: int(math.log2(picture)) - 1]


def _size(parameters: int, said: str, picture: int, multiplier: int) -> Size:
    return Size(config=StyleSwinConfig(widths=widths_of(picture, multiplier)), parameters=parameters, said=said)


STYLESWIN = MODELS.add(
    "styleswin",
    Companion(
        title="StyleSwin: Transformer-based GAN for High-resolution Image Generation",
        source="Zhang et al., 2022, arXiv:2112.10762",
        summary="a generator of styled window attention, and a critic that looks at wavelets",
        build=StyleSwin,
        sizes={
            "1024": _size(40_862_990, "40.86M", 1024, 1),
            "256": _size(48_929_512, "not said", 256, 2),
            "64": _size(45_209_794, "not said", 64, 2),
            "32": _size(36_535_963, "not said", 32, 2),
        },
        config=StyleSwinConfig,
        toy=StyleSwinConfig(widths=(16, 16, 8), style=12, mapping=2, window=4),
        example=lambda config: (numbers((2, config.style), dtype=torch.float32),),
        done=(
            "weights of the published code (`outpace.models.load_published`), the generator's and the critic's",
            "generator, critic of wavelets or of pixels, losses and gradient penalty",
            "the published code's numbers with its weights, for both, at 32 x 32 (compared once: it is not a package)",
        ),
        left_out=(
            "consistency under flips and shifts (bCR), spectral norm of the critic, truncation",
            "training on faces and churches, moving averages of weights",
        ),
        claim="a critic of wavelets keeps a generator of windows from leaving the windows' borders in its pictures",
        limits=(
            "a grid's tables and positions are for one size of pictures",
            "what shifted windows may not see has no weight at all here, and e^-100 in the published code",
        ),
    ),
)
