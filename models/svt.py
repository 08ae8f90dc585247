"""SVT: a pyramid whose first stages mix in the dual-tree wavelet domain, and whose last ones attend.

Source: Patro and Agneeswaran, 2023, arXiv:2311.01310.
Shapes: B batch, C channels, Y X grid, N tokens, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ..kernels.attention import attend
from ..kernels.wavelets import dual_tree, inverse_dual_tree
from .companion import MODELS, Companion, Size, check_divides, check_sizes
from .layers.pictures import ChannelNorm, depthwise, tokens_of
from .numbers import picture_batch


@dataclass(frozen=True, kw_only=True, slots=True)
class SvtConfig:
    """Sizes of an SVT; the defaults are the paper's small one."""

    widths: tuple[int, ...] = (64, 128, 320, 448)
    """Channels of each stage."""
    depths: tuple[int, ...] = (3, 4, 6, 3)
    """Blocks of each stage."""
    heads: tuple[int, ...] = (2, 4, 10, 14)
    """Of the attention of each stage that attends."""
    expansions: tuple[int, ...] = (8, 8, 4, 4)
    """Hidden units of a stage's feed-forward networks over its channels."""
    stem: int = 32
    """Channels of the first convolutions."""
    scattered: int = 2
    """Stages that mix by wavelets; the others attend."""
    token_mixing: bool = True
    """Whether bands are mixed along rows, too; then half of the channels go through a convolution instead."""
    parts: int = 4
    """Groups of channels that do not mix with each other in the bands."""
    picture: int = 224
    """Pixels of a side: the gains of what is smooth have one for each place."""
    dense: bool = True
    """Whether every place names a class, too, as training by labels of places wants."""
    channels: int = 3
    """Of a picture."""
    classes: int = 1000
    """Logits."""

    def __post_init__(self) -> None:
        check_sizes(self, zero=("scattered",))
        stages = len(self.widths)
        if not stages or any(len(part) != stages for part in (self.depths, self.heads, self.expansions)):
            raise ConfigError("an SVT has a depth, heads and an expansion for each stage's width")
        if self.scattered > stages:
            raise ConfigError(f"of {stages} stages, 0 to {stages} scatter, not {self.scattered}")
        check_divides("pixels of a side over strides", self.picture, 2 ** (stages + 1))
        for stage, (width, heads) in enumerate(zip(self.widths, self.heads, strict=True)):
            if stage >= self.scattered:
                check_divides(f"channels of stage {stage + 1} over heads", width, heads)
            else:
                check_divides(f"channels of stage {stage + 1} over parts", width, 2 * self.parts)


class ComplexNetwork(nn.Module):
    """Two complex matrices with a ReLU of both components between, block by block: (..., blocks, size) of complex."""

    def __init__(self, blocks: int, size: int) -> None:
        super().__init__()
        self.weight1, self.weight2 = (nn.Parameter(torch.randn(2, blocks, size, size) * 0.02) for _ in range(2))
        self.bias1, self.bias2 = (nn.Parameter(torch.randn(2, blocks, size) * 0.02) for _ in range(2))

    def forward(self, z: Tensor) -> Tensor:
        hidden = self._linear(z, self.weight1, self.bias1)
        return self._linear(torch.complex(hidden.real.relu(), hidden.imag.relu()), self.weight2, self.bias2)

    @staticmethod
    def _linear(z: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        weight, bias = (torch.complex(*part.to(z.real.dtype)) for part in (weight, bias))
        return torch.einsum("...bd,bdk->...bk", z, weight) + bias


class Scattering(nn.Module):
    """Gains for what is smooth, networks over channels and along rows for the six bands."""

    transform, inverse = staticmethod(dual_tree), staticmethod(inverse_dual_tree)
    """There and back; a trial puts other wavelets here."""

    def __init__(self, channels: int, parts: int, side: int, *, token_mixing: bool) -> None:
        super().__init__()
        self.near = depthwise(channels // 2, 3) if token_mixing else None
        far = channels // 2 if token_mixing else channels
        self.parts = parts
        self.gain = nn.Parameter(torch.randn(far, side, side) * 0.02)
        self.over_channels = ComplexNetwork(parts, far // parts)
        self.along_rows = ComplexNetwork(side // 2, side // 2) if token_mixing else None

    def forward(self, x_BCYX: Tensor) -> Tensor:
        near, far = (None, x_BCYX) if self.near is None else x_BCYX.chunk(2, 1)
        if far.shape[2:] != self.gain.shape[1:]:
            raise ConfigError(f"gains are for {tuple(self.gain.shape[1:])} places, not {tuple(far.shape[2:])}")
        # complex numbers come in float32 and float64 only
        low, high = self.transform(far.to(torch.promote_types(far.dtype, torch.float32)))
        bands = self.over_channels(high.movedim(1, -1).unflatten(-1, (self.parts, -1))).flatten(-2).movedim(-1, 1)
        bands = bands if self.along_rows is None else self.along_rows(bands)
        mixed = self.inverse(low * self.gain.to(low.dtype), bands).to(x_BCYX.dtype)
        if self.near is None or near is None:
            return mixed
        return torch.stack([self.near(near), mixed], 2).flatten(1, 2)  # one of each in turn


class GridAttention(nn.Module):
    """Attention between all places."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key_value = nn.Linear(channels, channels), nn.Linear(channels, 2 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        tokens = tokens_of(x_BCYX)
        return self.between(tokens, tokens).mT.unflatten(2, x_BCYX.shape[2:])

    def between(self, asking_BNC: Tensor, asked_BNC: Tensor) -> Tensor:
        """(B, N, C) of those that ask."""
        parts = (self.query(asking_BNC), *self.key_value(asked_BNC).chunk(2, -1))
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        return self.out(attend(q, k, v).transpose(1, 2).flatten(2))


class ConvolvedFeedForward(nn.Module):
    """A feed-forward network that looks at the places next to its own (PVT v2)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.up, self.down = nn.Conv2d(channels, hidden, 1), nn.Conv2d(hidden, channels, 1)
        self.neighbours = depthwise(hidden, 3)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        return self.down(F.gelu(self.neighbours(self.up(x_BCYX))))


class SvtBlock(nn.Module):
    """A mixer, then a feed-forward network."""

    def __init__(self, channels: int, mixer: nn.Module, expansion: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = ChannelNorm(channels, eps=1e-6), ChannelNorm(channels, eps=1e-6)
        self.mixer, self.feed_forward = mixer, ConvolvedFeedForward(channels, expansion * channels)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        x = x_BCYX + self.mixer(self.norm1(x_BCYX))
        return x + self.feed_forward(self.norm2(x))


class ClassBlock(nn.Module):
    """One more token, which begins as the mean of the others, asks all of them."""

    def __init__(self, channels: int, heads: int, expansion: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(channels, eps=1e-6), nn.LayerNorm(channels, eps=1e-6)
        self.attention = GridAttention(channels, heads)
        self.feed_forward = nn.Sequential(
            nn.Linear(channels, expansion * channels), nn.GELU(), nn.Linear(expansion * channels, channels)
        )

    def forward(self, x_BNC: Tensor) -> Tensor:
        mean = x_BNC.mean(1, keepdim=True)
        normed = self.norm1(torch.cat([mean, x_BNC], 1))
        asked = mean + self.attention.between(normed[:, :1], normed)
        return torch.cat([asked + self.feed_forward(self.norm2(asked)), x_BNC], 1)


class Svt(nn.Module):
    """Logits from pictures (B, C, Y, X) with sides of `config.picture`.

    >>> sizes = dict(widths=(8, 16), depths=(1, 1), heads=(2, 2), expansions=(2, 2), stem=4, scattered=1, parts=2)
    >>> model = Svt(SvtConfig(**sizes, picture=48, classes=5))
    >>> model(torch.zeros(2, 3, 48, 48)).shape
    torch.Size([2, 5])
    """

    def __init__(self, config: SvtConfig) -> None:
        super().__init__()
        self.config = config
        stem: list[nn.Module] = []
        for before, size in ((config.channels, 7), (config.stem, 3), (config.stem, 3)):
            stride = 2 if not stem else 1
            stem += [
                nn.Conv2d(before, config.stem, size, stride, size // 2, bias=False),
                nn.BatchNorm2d(config.stem),
                nn.ReLU(),
            ]
        layers, before = [*stem], config.stem
        for stage, (width, depth, heads, expansion) in enumerate(
            zip(config.widths, config.depths, config.heads, config.expansions, strict=True)
        ):
            layers += [nn.Conv2d(before, width, 3, 2, 1), ChannelNorm(width)]
            for _ in range(depth):
                if stage < config.scattered:
                    side = config.picture // 2 ** (stage + 2)
                    mixer: nn.Module = Scattering(width, config.parts, side, token_mixing=config.token_mixing)
                else:
                    mixer = GridAttention(width, heads)
                layers.append(SvtBlock(width, mixer, expansion))
            if stage < len(config.widths) - 1:
                layers.append(ChannelNorm(width, eps=1e-6))
            before = width
        self.layers = nn.Sequential(*layers)
        self.asking = ClassBlock(before, config.heads[-1], config.expansions[-1])
        self.norm = nn.LayerNorm(before, eps=1e-6)
        self.head = nn.Linear(before, config.classes)
        self.dense_head = nn.Linear(before, config.classes) if config.dense else None
        self.apply(_drawn)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """(B, K); with a dense head, half of the largest logits of any place are added."""
        whole, places = self.parts(x_BCYX)
        return whole if places is None else whole + 0.5 * places.amax(1)

    def parts(self, x_BCYX: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits of the picture (B, K) and of every place (B, N, K), which a training by labels of places compares."""
        tokens = self.norm(self.asking(tokens_of(self.layers(x_BCYX))))
        return self.head(tokens[:, 0]), None if self.dense_head is None else self.dense_head(tokens[:, 1:])


def _drawn(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        fan = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=0.02 if fan == module.out_channels else (2 / fan) ** 0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


LARGE: dict[str, Any] = {"widths": (96, 192, 384, 512), "depths": (3, 6, 18, 3), "heads": (3, 6, 12, 16), "stem": 64}
BASE: dict[str, Any] = {"widths": (64, 128, 320, 512), "depths": (3, 4, 12, 3), "heads": (2, 4, 10, 16), "stem": 64}
RELEASED: dict[str, Any] = {"scattered": 1, "token_mixing": False}


def _size(parameters: int, said: str, **sizes: Any) -> Size:
    return Size(config=SvtConfig(**sizes), parameters=parameters, said=said)


SVT = MODELS.add(
    "svt",
    Companion(
        title="Scattering Vision Transformer: Spectral Mixing Matters",
        source="Patro and Agneeswaran, 2023, arXiv:2311.01310",
        summary="a pyramid that mixes in the dual-tree wavelet domain first, and attends last",
        build=Svt,
        sizes={
            "small": _size(22_019_248, "22.0M"),
            "base": _size(32_845_200, "32.8M", **BASE),
            "large": _size(54_833_616, "54.0M", **LARGE, token_mixing=False),
            "small-released": _size(22_052_592, "not said", **RELEASED),
            "base-released": _size(32_878_544, "not said", **BASE, **RELEASED),
            "large-released": _size(54_594_000, "not said", **LARGE, **RELEASED),
        },
        config=SvtConfig,
        toy=SvtConfig(
            widths=(8, 16),
            depths=(1, 1),
            heads=(2, 2),
            expansions=(2, 2),
            stem=4,
            scattered=1,
            parts=2,
            picture=48,
            classes=5,
        ),
        example=lambda config: (picture_batch(config.picture, channels=config.channels),),
        done=(
            "weights of the published code (`outpace.models.load_published`), for the sizes '...-released'",
            "the model with mixing over channels, and over channels and tokens (of the paper's table)",
            "the dual-tree transform of one level and its inverse (`outpace.kernels.wavelets`), no package needed",
        ),
        left_out=("training by labels of places on ImageNet", "gains resized for pictures of other sizes"),
        claim="bands of the dual tree, which hardly change as an edge moves, are better to mix than a plain wavelet's",
        limits=(
            "the large model has 54.83 M parameters, 1.5 % more than the paper prints: the published code has no token "
            "mixing that works at its widths, so this is the one with mixing over channels in two stages",
            "the released file scatters in one stage and over channels only, unlike the paper's table: sizes "
            "'...-released'",
            "gains of what is smooth are for one size of pictures",
        ),
    ),
)
