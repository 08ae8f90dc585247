"""PredFormer: the next frames of a video from those before, by transformer blocks over space and time and nothing else.

Source: Tang et al., 2024, arXiv:2410.04733.
Shapes: B batch, T frames, C channels, Y X grid, N patches of a frame, D width, P numbers of a patch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import ConfigError, UnknownNameError
from ..kernels.attention import attend
from ..kernels.feed_forward import glu
from ..registry import suggestion
from .companion import MODELS, Companion, Size, check_divides, check_sizes
from .layers.pictures import drawn_normal, from_patches, into_patches
from .numbers import numbers

LAYOUTS: dict[str, tuple[str, bool]] = {
    "full": ("A", True),
    "fac-st": ("ST", True),
    "fac-ts": ("TS", True),
    "bin-ts": ("TS", False),
    "bin-st": ("ST", False),
    "triplet-tst": ("TST", False),
    "triplet-sts": ("STS", False),
    "quad-tsst": ("TSST", False),
    "quad-stts": ("STTS", False),
}
"""Name -> what blocks attend over (A all tokens, S space, T time), and whether each letter is one stack of them;
otherwise each is one block and the letters repeat."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PredFormerConfig:
    """Sizes of a PredFormer; the defaults are the paper's for Moving MNIST."""

    layout: str = "quad-tsst"
    """Which blocks attend over space and which over time: a name in `LAYOUTS`."""
    frames: int = 10
    """Frames it is given, and frames it predicts at once."""
    picture: tuple[int, int] = (64, 64)
    """Rows and columns of a frame."""
    channels: int = 1
    """Of a frame."""
    patch: int = 8
    """Pixels of a side of a token."""
    blocks: int = 24
    """Blocks in all."""
    width: int = 256
    """Of the residual stream."""
    heads: int = 8
    """Of attention."""
    expansion: int = 4
    """Hidden units of a block's gated network over its width."""
    dropout: float = 0.0
    """Share of numbers dropped in training."""
    legacy_order: bool = False
    """Read patches by frame where they lie by patch, as the published code of "fac-st" does before its head."""

    def __post_init__(self) -> None:
        check_sizes(self)
        if len(self.picture) != 2:
            raise ConfigError(f"pictures of a PredFormer have rows and columns, not {self.picture}")
        if self.layout not in LAYOUTS:
            names = list(LAYOUTS)
            raise UnknownNameError(f"a PredFormer has no layout '{self.layout}'{suggestion(self.layout, names)}")
        for side in self.picture:
            check_divides("pixels of a side over patches", side, self.patch)
        check_divides("width over heads", self.width, self.heads)
        check_divides(f"blocks over the {self.layout} pattern", self.blocks, len(LAYOUTS[self.layout][0]))
        if not self.dropout < 1:
            raise ConfigError(f"dropout of a PredFormer must be in [0, 1), not {self.dropout}")
        if self.legacy_order and self.layout != "fac-st":
            raise ConfigError(f"legacy_order is of the layout 'fac-st' alone, not '{self.layout}'")


class GatedBlock(nn.Module):
    """Attention among tokens, then SwiGLU."""

    def __init__(self, config: PredFormerConfig) -> None:
        super().__init__()
        width, hidden = config.width, config.expansion * config.width
        self.heads, self.drop = config.heads, nn.Dropout(config.dropout)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)
        self.gate, self.up, self.down = nn.Linear(width, hidden), nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x_BND: Tensor) -> Tensor:
        q, k, v = self.query_key_value(self.norm1(x_BND)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x_BND + self.drop(self.out(attend(q, k, v).transpose(1, 2).flatten(-2)))
        return x + self.drop(self.network(self.norm2(x)))

    def network(self, x: Tensor) -> Tensor:
        """The gated network."""
        return glu(
            x,
            self.up.weight,
            self.down.weight,
            self.gate.weight,
            up_bias_H=self.up.bias,
            gate_bias_H=self.gate.bias,
            down_bias_O=self.down.bias,
        )


class Stack(nn.Module):
    """Some blocks over one of the axes, and a norm behind them."""

    def __init__(self, over: str, depth: int, config: PredFormerConfig) -> None:
        super().__init__()
        self.over = over
        self.blocks = nn.Sequential(*(GatedBlock(config) for _ in range(depth)))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, x_BTND: Tensor) -> Tensor:
        batch, frames, patches, _ = x_BTND.shape
        if self.over == "A":
            return self.norm(self.blocks(x_BTND.flatten(1, 2))).unflatten(1, (frames, patches))
        if self.over == "S":
            return self.norm(self.blocks(x_BTND.flatten(0, 1))).unflatten(0, (batch, frames))
        by_patch = self.norm(self.blocks(x_BTND.transpose(1, 2).flatten(0, 1)))
        return by_patch.unflatten(0, (batch, patches)).transpose(1, 2)


class PredFormer(nn.Module):
    """As many frames as it is given, that follow them.

    >>> model = PredFormer(PredFormerConfig(frames=2, picture=(8, 8), patch=4, blocks=4, width=16, heads=2))
    >>> model(torch.zeros(3, 2, 1, 8, 8)).shape, model.predict(torch.zeros(3, 2, 1, 8, 8), 5).shape
    (torch.Size([3, 2, 1, 8, 8]), torch.Size([3, 5, 1, 8, 8]))
    """

    def __init__(self, config: PredFormerConfig) -> None:
        super().__init__()
        self.config = config
        pattern, stacked = LAYOUTS[config.layout]
        repeats = config.blocks // len(pattern)
        numbers, patches = config.channels * config.patch**2, config.picture[0] * config.picture[1] // config.patch**2
        self.embed = nn.Linear(numbers, config.width)
        self.stacks = nn.Sequential(
            *(Stack(over, repeats if stacked else 1, config) for over in pattern * (1 if stacked else repeats))
        )
        self.head = nn.Sequential(nn.LayerNorm(config.width), nn.Linear(config.width, numbers))
        positions = sinusoids(config.frames * patches, config.width).unflatten(0, (config.frames, patches))
        self.register_buffer("positions_TND", positions, persistent=False)
        self.apply(drawn_normal)

    def forward(self, x_BTCYX: Tensor) -> Tensor:
        """(B, T, C, Y, X): the T frames after the T that are given.

        Raises: ConfigError: not the number and size of frames it was built for.
        """
        config = self.config
        expected = (config.frames, config.channels, *config.picture)
        if x_BTCYX.ndim != 5 or tuple(x_BTCYX.shape[1:]) != expected:
            raise ConfigError(f"this PredFormer takes (batch, {', '.join(map(str, expected))}), not {x_BTCYX.shape}")
        batch = x_BTCYX.shape[:2]
        patches = into_patches(x_BTCYX.flatten(0, 1), config.patch).unflatten(0, batch)
        x = self.stacks(self.embed(patches) + self.get_buffer("positions_TND"))
        if config.legacy_order:
            x = x.transpose(1, 2).reshape(x.shape)
        return from_patches(self.head(x).flatten(0, 1), config.patch, config.picture).unflatten(0, batch)

    def predict(self, x_BTCYX: Tensor, count: int) -> Tensor:
        """(B, count, C, Y, X): what it predicts is given to it again until there are enough."""
        if count < 1:
            raise ConfigError(f"at least 1 frame can be predicted, not {count}")
        parts = [self(x_BTCYX)]
        while len(parts) * self.config.frames < count:
            parts.append(self(parts[-1]))
        return torch.cat(parts, 1)[:, :count]


def sinusoids(count: int, width: int) -> Tensor:
    """(count, width): sin and cos of the position over 10000^(2 floor(i / 2) / width), in turn."""
    i = torch.arange(width)
    angle = torch.arange(count, dtype=torch.float64)[:, None] / 10_000.0 ** (2 * (i // 2).double() / width)
    return torch.where(i % 2 == 0, angle.sin(), angle.cos()).to(torch.get_default_dtype())


def _sizes() -> dict[str, Size]:
    mnist = {"full": 25_285_952, "fac-st": 25_286_464, "fac-ts": 25_286_464}
    sizes = {}
    for layout in LAYOUTS:
        config = PredFormerConfig(layout=layout)
        sizes[f"mnist-{layout}"] = Size(config=config, parameters=mnist.get(layout, 25_297_728), said="25.3M")
    others = (
        ("human", "fac-ts", 12, (4, (256, 256), 3, 8, 4), 12_726_208, "12.7M"),
        ("human", "quad-tsst", 12, (4, (256, 256), 3, 8, 4), 12_731_328, "12.7M"),
        ("taxi", "bin-ts", 8, (4, (32, 32), 2, 4, 4), 8_438_560, "8.4M"),
        ("taxi", "triplet-sts", 6, (4, (32, 32), 2, 4, 4), 6_333_216, "6.3M"),
        ("weather", "fac-ts", 8, (12, (32, 64), 1, 4, 2), 5_273_360, "5.3M"),
        ("weather", "quad-tsst", 8, (12, (32, 64), 1, 4, 2), 5_276_432, "5.3M"),
        ("weather", "triplet-tst", 6, (12, (32, 64), 1, 4, 2), 3_959_568, "4.0M"),
    )
    for data, layout, blocks, (frames, picture, channels, patch, expansion), parameters, said in others:
        config = PredFormerConfig(
            layout=layout,
            blocks=blocks,
            frames=frames,
            picture=picture,
            channels=channels,
            patch=patch,
            expansion=expansion,
        )
        sizes[f"{data}-{layout}"] = Size(config=config, parameters=parameters, said=said)
    return sizes


PREDFORMER = MODELS.add(
    "predformer",
    Companion(
        title="PredFormer: Transformers Are Effective Spatial-Temporal Predictive Learners",
        source="Tang et al., 2024, arXiv:2410.04733",
        summary="video prediction by gated transformer blocks over space and time, in nine arrangements",
        build=PredFormer,
        sizes=_sizes(),
        config=PredFormerConfig,
        toy=PredFormerConfig(frames=2, picture=(8, 8), patch=4, blocks=4, width=16, heads=2),
        example=lambda config: (numbers((2, config.frames, config.channels, *config.picture), dtype=torch.float32),),
        done=(
            "weights of the published code (`outpace.models.load_published`); those of fac-st need legacy_order=True",
            "all nine arrangements",
            "rolling out further than it was built for",
        ),
        left_out=(
            "stochastic depth",
            "the extra skip of the published Human3.6M triplets",
            "training on its data sets",
        ),
        claim="blocks that take space and time in turn predict better than all of space before all of time",
        limits=(
            "the number and size of frames are fixed by the positions",
            "the trial here says that time must not come last; all of time before all of space does as well as turns",
        ),
    ),
)
