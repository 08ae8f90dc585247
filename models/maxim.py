"""MAXIM: pictures restored by gated MLPs along two axes, near and far, in a multi-stage pyramid.

Source: Tu et al., 2022, arXiv:2201.02973.
Shapes: B batch, Y X grid, C channels, last as in the published code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ..kernels.attention.windows import from_windows, into_windows
from ..kernels.feed_forward.axis_mix import axis_mix
from .companion import MODELS, Companion, Size, check_sizes
from .numbers import picture_batch

LEVELS, GROUPS, BOTTLENECKS = 3, 2, 2
SIDES = (16, 16, 8, 8)
"""Pixels of a side of a block, and cells of a side of a grid, at each level and in the bottleneck."""
MULTIPLE = 64
"""What sides of a picture are multiples of: the coarsest level still holds whole blocks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MaximConfig:
    """Sizes of a MAXIM; the defaults are the paper's S-2."""

    features: int = 32
    """Channels of the first level; each further level has twice as many."""
    stages: int = 2
    """Pyramids one after the other, each with pictures of its own."""
    scales: int = 3
    """Sizes of pictures that every stage takes and gives: 1, or 3 as in the paper."""

    def __post_init__(self) -> None:
        check_sizes(self)
        if self.features < 4 or self.scales > LEVELS:
            raise ConfigError(
                f"a MAXIM has at least 4 features and from 1 to {LEVELS} scales, not {self.features} and {self.scales}"
            )


class Conv(nn.Conv2d):
    """A convolution of pictures with channels last."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.movedim(-1, 1)).movedim(1, -1)


class Doubling(nn.ConvTranspose2d):
    """Twice as large, channels last."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 2, 2)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        return super().forward(input.movedim(-1, 1), output_size).movedim(1, -1)


class Resized(nn.Module):
    """Resized to another level, then mixed to its channels."""

    def __init__(self, inputs: int, outputs: int, ratio: float) -> None:
        super().__init__()
        self.ratio, self.mix = ratio, nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        size = [round(side * self.ratio) for side in x.shape[1:3]]
        wide = x.to(torch.promote_types(x.dtype, torch.float32))  # torch resizes nothing shorter with antialias
        resized = F.interpolate(wide.movedim(-1, 1), size, mode="bilinear", antialias=True)
        return self.mix(resized.movedim(1, -1).to(x.dtype))


class AxisDense(nn.Linear):
    """A dense layer along an axis of the windows of a picture: -2 inside blocks, -3 across a grid."""

    def __init__(self, side: int, axis: int, *, bias: float) -> None:
        super().__init__(side * side, side * side)
        self.axis = axis
        nn.init.normal_(self.weight, std=0.02)
        nn.init.constant_(self.bias, bias)

    def forward(self, input: Tensor) -> Tensor:
        return axis_mix(input, self.weight, self.bias, axis=self.axis)


class AxisGmlp(nn.Module):
    """A gated MLP whose gate is mixed along one axis."""

    def __init__(self, channels: int, side: int, *, grid: bool) -> None:
        super().__init__()
        self.side, self.grid = side, grid
        self.norm, self.gate_norm = norm(channels), norm(channels)
        self.up, self.down = nn.Linear(channels, 2 * channels), nn.Linear(channels, channels)
        self.mix = AxisDense(side, -3 if grid else -2, bias=0.0)

    def forward(self, x: Tensor) -> Tensor:
        size, window = (x.shape[1], x.shape[2]), window_of(x, self.side, grid=self.grid)
        h = into_windows(x, window)
        u, v = gelu(self.up(self.norm(h))).chunk(2, -1)
        h = h + self.down(u * (self.mix(self.gate_norm(v)) + 1))
        return from_windows(h, size, window)


class MultiAxis(nn.Module):
    """Half of the channels mixed across a grid, half inside blocks, with a residual."""

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = (
            norm(channels),
            nn.Linear(channels, 2 * channels),
            nn.Linear(2 * channels, channels),
        )
        self.grid, self.block = AxisGmlp(channels, side, grid=True), AxisGmlp(channels, side, grid=False)

    def forward(self, x: Tensor) -> Tensor:
        u, v = gelu(self.up(self.norm(x))).chunk(2, -1)
        return x + self.down(torch.cat([self.grid(u), self.block(v)], -1))


class GatingWeights(nn.Module):
    """What one signal says another should be multiplied by."""

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.norm, self.up, self.down = (
            norm(channels),
            nn.Linear(channels, 2 * channels),
            nn.Linear(2 * channels, channels),
        )
        self.grid, self.block = AxisDense(side, -3, bias=1.0), AxisDense(side, -2, bias=1.0)

    def forward(self, x: Tensor) -> Tensor:
        parts, size = [], (x.shape[1], x.shape[2])
        for part, mix in zip(gelu(self.up(self.norm(x))).chunk(2, -1), (self.grid, self.block), strict=True):
            window = window_of(x, self.side, grid=mix.axis == -3)
            parts.append(from_windows(mix(into_windows(part, window)), size, window))
        return self.down(torch.cat(parts, -1))


class CrossGate(nn.Module):
    """Two signals, each gated by the other."""

    def __init__(self, x_channels: int, y_channels: int, channels: int, side: int, *, doubles: bool) -> None:
        super().__init__()
        self.enlarge = Doubling(y_channels, channels) if doubles else nn.Identity()
        self.x_in, self.y_in = nn.Linear(x_channels, channels), nn.Linear(channels if doubles else y_channels, channels)
        self.x_norm, self.y_norm = norm(channels), norm(channels)
        self.x_up, self.y_up, self.x_out, self.y_out = (nn.Linear(channels, channels) for _ in range(4))
        self.x_gate, self.y_gate = GatingWeights(channels, side), GatingWeights(channels, side)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        x, y = self.x_in(x), self.y_in(self.enlarge(y))
        a, b = gelu(self.x_up(self.x_norm(x))), gelu(self.y_up(self.y_norm(y)))
        y = y + self.y_out(b * self.x_gate(a))
        return x + y + self.x_out(a * self.y_gate(b)), y


class ChannelGate(nn.Module):
    """A residual branch, its channels weighed by their means."""

    def __init__(self, channels: int, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch
        self.weigh = nn.Sequential(
            nn.Linear(channels, channels // 4), nn.ReLU(), nn.Linear(channels // 4, channels), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        h = self.branch(x)
        return x + h * self.weigh(h.mean((1, 2), keepdim=True))


class Level(nn.Module):
    """What every level does: some groups of mixers and convolutions, or in the bottleneck of mixers and MLPs."""

    def __init__(self, inputs: int, channels: int, side: int, *, convolves: bool) -> None:
        super().__init__()
        self.mix = nn.Linear(inputs, channels)
        layers: list[nn.Module] = []
        for _ in range(GROUPS):
            pair = (
                (Conv(channels, channels, 3, padding=1), nn.LeakyReLU(0.2), Conv(channels, channels, 3, padding=1))
                if convolves
                else (nn.Linear(channels, channels), nn.GELU(approximate="tanh"), nn.Linear(channels, channels))
            )
            branch = nn.Sequential(norm(channels), *pair)
            layers += [MultiAxis(channels, side), ChannelGate(channels, branch)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mix(x)
        return x + self.layers(x)


class Supervision(nn.Module):
    """A picture from features, and the features that it bears out."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.features, self.picture, self.weigh = (
            Conv(channels, channels, 3, padding=1),
            Conv(channels, 3, 3, padding=1),
            Conv(3, channels, 3, padding=1),
        )

    def forward(self, x: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        picture = self.picture(x) + given
        return x + self.features(x) * self.weigh(picture).sigmoid(), picture


class Previous:
    """What a stage hands to the next: by level, features of encoder plus decoder, and those pictures bear out."""

    def __init__(self, levels: Sequence[Tensor], supervised: Sequence[Tensor]) -> None:
        self.levels, self.supervised = levels, supervised


class Stage(nn.Module):
    """One pyramid: down, a bottleneck, skips gated from the top, up."""

    def __init__(self, config: MaximConfig, *, first: bool, last: bool) -> None:
        super().__init__()
        widths = [config.features * 2**level for level in range(LEVELS)]
        self.scales, below = config.scales, [widths[0], *widths[:-1]]
        supervised = range(config.scales)
        self.inputs = nn.ModuleList(Conv(3, widths[i], 3, padding=1) for i in supervised)
        encoded = [below[i] + (widths[i] if i in supervised else 0) for i in range(LEVELS)]
        self.encoders = nn.ModuleList(Level(encoded[i], widths[i], SIDES[i], convolves=True) for i in range(LEVELS))
        gate = range(0 if first else LEVELS)
        self.input_gates = nn.ModuleList(_beside(widths[i], SIDES[i]) for i in gate if i in supervised)
        self.encoder_gates = nn.ModuleList(_beside(widths[i], SIDES[i]) for i in gate)
        self.downs = nn.ModuleList(Conv(width, width, 4, 2, padding=1) for width in widths)
        top = widths[-1]
        self.bottleneck = nn.Sequential(*(Level(top, top, SIDES[-1], convolves=False) for _ in range(BOTTLENECKS)))
        self.to_skips, self.to_decoders = (
            nn.ModuleList(
                nn.ModuleList(Resized(widths[j], widths[i], 2.0 ** (j - i)) for j in range(LEVELS))
                for i in range(LEVELS)
            )
            for _ in range(2)
        )
        above = [*widths[1:], top]
        self.skip_gates = nn.ModuleList(
            CrossGate(LEVELS * widths[i], above[i], widths[i], SIDES[i], doubles=True) for i in range(LEVELS)
        )
        self.ups = nn.ModuleList(Doubling(above[i], widths[i]) for i in range(LEVELS))
        self.decoders = nn.ModuleList(
            Level((LEVELS + 1) * widths[i], widths[i], SIDES[i], convolves=True) for i in range(LEVELS)
        )
        self.outputs = nn.ModuleList(
            Conv(widths[i], 3, 3, padding=1) if last else Supervision(widths[i]) for i in supervised
        )

    def forward(self, given: Sequence[Tensor], previous: Previous | None) -> tuple[list[Tensor], Previous]:
        """(pictures by scale, the largest first; what the next stage gets)."""
        inputs = [conv(picture) for conv, picture in zip(self.inputs, given, strict=True)]
        if previous is not None:
            inputs = [gate(x, y)[0] for gate, x, y in zip(self.input_gates, inputs, previous.supervised, strict=True)]
        x, encoded = inputs[0], []
        for i in range(LEVELS):
            x = self.encoders[i](torch.cat([x, inputs[i]], -1) if i < self.scales else x)
            x = x if previous is None else self.encoder_gates[i](x, previous.levels[i])[0]
            encoded.append(x)
            x = self.downs[i](x)
        x = overall = self.bottleneck(x)
        skips: list[Tensor] = [x] * LEVELS
        for i in reversed(range(LEVELS)):
            skips[i], overall = self.skip_gates[i](_joined(self.to_skips[i], encoded), overall)
        levels, supervised, pictures = list(encoded), list(inputs), list(given)
        for i in reversed(range(LEVELS)):
            x = self.decoders[i](torch.cat([self.ups[i](x), _joined(self.to_decoders[i], skips)], -1))
            levels[i] = encoded[i] + x
            if i < self.scales:
                output = self.outputs[i]
                if isinstance(output, Supervision):
                    supervised[i], pictures[i] = output(x, given[i])
                else:
                    pictures[i] = output(x) + given[i]
        return pictures, Previous(levels, supervised)


class Maxim(nn.Module):
    """Restored pictures (B, 3, Y, X), of the size of those given: sides multiples of 64.

    >>> model = Maxim(MaximConfig(features=4, stages=1, scales=1))
    >>> model(torch.zeros(1, 3, 64, 64)).shape
    torch.Size([1, 3, 64, 64])
    """

    def __init__(self, config: MaximConfig) -> None:
        super().__init__()
        self.config = config
        self.stages = nn.ModuleList(
            Stage(config, first=i == 0, last=i == config.stages - 1) for i in range(config.stages)
        )

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """The last stage's largest picture."""
        return self.pictures(x_BCYX)[-1][0]

    def pictures(self, x_BCYX: Tensor) -> list[list[Tensor]]:
        """Of every stage, its picture at every scale, the largest first: what training compares with the truth.

        Raises: ConfigError: sides that are not multiples of 64.
        """
        if x_BCYX.ndim != 4 or x_BCYX.shape[1] != 3 or any(side % MULTIPLE for side in x_BCYX.shape[2:]):
            raise ConfigError(
                f"a MAXIM takes pictures (batch, 3, rows, columns) with sides multiples of {MULTIPLE}, not "
                f"{tuple(x_BCYX.shape)}; pad them by reflection"
            )
        given = [at_scale(x_BCYX, level) for level in range(self.config.scales)]
        found, previous = [], None
        for stage in self.stages:
            pictures, previous = stage([picture.movedim(1, -1) for picture in given], previous)
            found.append([picture.movedim(-1, 1) for picture in pictures])
        return found


def at_scale(x_BCYX: Tensor, level: int) -> Tensor:
    """A picture halved `level` times, each pixel the one nearest to the middle of what it stands for.

    >>> at_scale(torch.arange(8.0).expand(1, 1, 8, 8), 2)[0, 0, 0]
    tensor([2., 6.])
    """
    step = 2**level
    return x_BCYX[:, :, step // 2 :: step, step // 2 :: step]


def norm(channels: int) -> nn.LayerNorm:
    """With the constant of the published code."""
    return nn.LayerNorm(channels, eps=1e-6)


def gelu(x: Tensor) -> Tensor:
    """The published code's: by tanh."""
    return F.gelu(x, approximate="tanh")


def window_of(x: Tensor, side: int, *, grid: bool) -> tuple[int, int]:
    """Rows and columns of a block; or of what lies in one cell of a grid of `side` x `side` cells."""
    return (x.shape[1] // side, x.shape[2] // side) if grid else (side, side)


def _beside(channels: int, side: int) -> CrossGate:
    return CrossGate(channels, channels, channels, side, doubles=False)


def _joined(resize: nn.Module, signals: Sequence[Tensor]) -> Tensor:
    return torch.cat([part(signal) for part, signal in zip(resize.children(), signals, strict=True)], -1)


def _sizes() -> dict[str, Size]:
    one = {32: (6_108_515, 13_353_830, 20_599_145), 64: (19_361_219, 40_839_110, 62_317_001)}
    three = {32: (6_139_561, 14_176_178, 22_212_795), 64: (19_464_265, 43_227_986, 66_991_707)}
    said = {14_176_178: "14.1M", 22_212_795: "22.2M"}
    sizes = {}
    for scales, table in ((3, three), (1, one)):
        for features, counts in table.items():
            for stages, parameters in enumerate(counts, 1):
                name = f"{'S' if features == 32 else 'M'}-{stages}" + ("" if scales == 3 else "-one-scale")
                config = MaximConfig(features=features, stages=stages, scales=scales)
                sizes[name] = Size(config=config, parameters=parameters, said=said.get(parameters, "not said"))
    return sizes


MAXIM = MODELS.add(
    "maxim",
    Companion(
        title="MAXIM: Multi-Axis MLP for Image Processing",
        source="Tu et al., 2022, arXiv:2201.02973",
        summary="restoration by gated MLPs inside blocks and across a grid: the whole picture at linear cost",
        build=Maxim,
        sizes=_sizes(),
        config=MaximConfig,
        toy=MaximConfig(features=4),
        example=lambda config: (picture_batch(64, count=1),),
        done=(
            "weights of the published code, Flax's checkpoints (`outpace.models.load_published`)",
            "twelve models: two widths, one to three stages, one or three scales of supervision",
        ),
        left_out=("training",),
        claim="mixing along both axes is better than inside blocks alone",
        limits=(
            "sides of pictures are multiples of 64: pad by reflection and crop",
            "the trial trains too briefly to tell: what is gained differs more by seed than by arm",
        ),
    ),
)
