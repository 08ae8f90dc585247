"""P2AT: a residual network, attention among means of rows and columns, and a decoder that fuses three scales.

Source: Elhassan et al., 2023, arXiv:2310.15025.
Shapes: B batch, C channels, Y X grid, H heads, D width of keys, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ..kernels.attention.axial import axial_attention
from .companion import MODELS, Companion, Size, check_sizes
from .layers.pictures import depthwise
from .numbers import picture_batch

POSITIONS = 16
"""Places along an axis that positions are learned for; other lengths get them resized."""


@dataclass(frozen=True, kw_only=True, slots=True)
class P2atConfig:
    """Sizes of a P2AT; the defaults are the small one for CamVid, with the heads that training needs."""

    stages: tuple[int, ...] = (64, 128, 256, 512)
    """Channels of the residual network's four stages."""
    depths: tuple[int, ...] = (2, 2, 2, 2)
    """Residual layers of each stage."""
    bottleneck: bool = False
    """Layers of three convolutions (ResNet-50), not two (ResNet-18 and 34)."""
    width: int = 64
    """Channels behind the residual network."""
    layers: int = 2
    """Transformer layers."""
    heads: int = 8
    """Of attention."""
    key_width: int = 16
    """Channels of a head's queries and keys; its values have twice as many."""
    legacy_pool: bool = False
    """Pool as the published code does, which reads the first average twice and the second never."""
    auxiliary: bool = True
    """Keep the two further heads that training adds losses to."""
    classes: int = 11
    """Logits of a pixel."""

    def __post_init__(self) -> None:
        check_sizes(self)
        if len(self.stages) != 4 or len(self.depths) != 4:
            raise ConfigError(f"P2AT has four stages with a depth each, not {self.stages} and {self.depths}")


class PyramidPooling(nn.Module):
    """A map times what three averages of it, each of the one before, say of its surroundings."""

    def __init__(self, width: int, *, legacy: bool) -> None:
        super().__init__()
        self.legacy = legacy
        self.enter, self.mix = activated(width, width, 1), activated(3 * width, width, 3, groups=width)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        x = averaged = self.enter(x_BCYX)
        averages = [averaged := F.avg_pool2d(averaged, side, 1, side // 2) for side in (3, 5, 7)]
        if self.legacy:
            averages[1] = averages[0]
        return self.mix(torch.cat(averages, 1)) * x


class PooledAxialAttention(nn.Module):
    """Every position gets what its row's mean and its column's mean learn from all others of their kind."""

    def __init__(self, config: P2atConfig) -> None:
        super().__init__()
        width, self.heads = config.width, config.heads
        keys, values = self.heads * config.key_width, 2 * self.heads * config.key_width
        self.pool = PyramidPooling(width, legacy=config.legacy_pool)
        self.query, self.key, self.value = (
            nn.Conv2d(width, channels, 1, bias=False) for channels in (keys, keys, values)
        )
        self.positions = nn.Parameter(torch.randn(2, 2, keys, POSITIONS))
        self.of_rows, self.of_columns = activated(values, values, 1), nn.Conv2d(values, values, 1, bias=False)
        self.out = activated(values, width, 1)
        self.details = nn.Sequential(nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width))
        self.finer = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x_BCYX: Tensor) -> Tensor:
        pooled = self.pool(x_BCYX)
        value = self.value(pooled)
        q, k, v = (
            part.unflatten(1, (self.heads, -1)).movedim(2, -1) for part in (self.query(pooled), self.key(pooled), value)
        )
        axes = []
        for axis, length in enumerate(x_BCYX.shape[2:]):
            positions = F.interpolate(self.positions[axis], length, mode="linear")
            for_query, for_key = positions.unflatten(1, (self.heads, -1)).mT
            out = axial_attention(q, k, v, axis=axis, positions=(for_query, for_key))
            axes.append(out.mT.flatten(1, 2).unsqueeze(3 - axis))
        details = self.details(x_BCYX)
        return self.out(value + (self.of_rows(axes[0]) + self.of_columns(axes[1]))) * (self.finer(details) + details)


class TransformerLayer(nn.Module):
    """Attention among rows and columns, then a feed-forward network that sees neighbours; no norms between."""

    def __init__(self, config: P2atConfig) -> None:
        super().__init__()
        width = config.width
        self.attention = PooledAxialAttention(config)
        self.feed_forward = nn.Sequential(
            nn.Conv2d(width, 4 * width, 1, bias=False),
            depthwise(4 * width, 3),
            nn.ReLU(),
            nn.Conv2d(4 * width, width, 1, bias=False),
        )

    def forward(self, x_BCYX: Tensor) -> Tensor:
        x = x_BCYX + self.attention(x_BCYX)
        return x + self.feed_forward(x)


class DecoderBlock(nn.Module):
    """A wide depthwise convolution and a feed-forward network, at first worth next to nothing."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.near = nn.Sequential(depthwise(width, kernel), nn.BatchNorm2d(width))
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.Hardswish(), nn.Linear(4 * width, width))
        self.worth = nn.Parameter(torch.full((width,), 1e-6))

    def forward(self, x_BCYX: Tensor) -> Tensor:
        return x_BCYX + (self.worth * self.feed_forward(self.near(x_BCYX).movedim(1, -1))).movedim(-1, 1)


class Fusion(nn.Module):
    """What is fine but shallow, what lies between, and what is deep but coarse, in one map of the finest's size."""

    def __init__(self, fine: int, between: int, width: int) -> None:
        super().__init__()
        self.fine = activated(fine, width, 1)
        self.whole, self.local, self.join = (nn.Conv2d(width, width, 1, bias=False) for _ in range(3))
        self.deep, self.share = activated(width, width, 1), nn.Conv2d(width, width, 1)
        self.between = nn.Sequential(nn.Conv2d(between, width, 1, bias=False), nn.BatchNorm2d(width))
        self.fuse = nn.Sequential(nn.Conv2d(3 * width, width, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, fine_BCYX: Tensor, between_BCYX: Tensor, deep_BCYX: Tensor) -> Tensor:
        fine = self.fine(fine_BCYX)
        fine = self.join(self.whole(fine.mean((2, 3), keepdim=True)) + self.local(fine).sigmoid())
        between = resized(self.between(between_BCYX), fine)
        deep = resized(self.deep(deep_BCYX) * self.share(deep_BCYX).softmax(1), fine)
        return self.fuse(torch.cat([fine, deep, between], 1)) + between * deep + (between * fine).sigmoid()


class GlobalContext(nn.Module):
    """Adds to every position what the mean of all says."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.read = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.scale, self.shift = nn.Parameter(torch.ones(width, 1, 1)), nn.Parameter(torch.zeros(width, 1, 1))
        self.write = activated(width, width, 7)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        return x_BCYX + self.write(self.read(x_BCYX.mean((2, 3), keepdim=True)) * self.scale + self.shift)


class P2at(nn.Module):
    """Logits (B, K, Y, X) of every pixel of pictures (B, 3, Y, X) of any size.

    >>> config = P2atConfig(stages=(4, 8, 8, 8), depths=(1, 1, 1, 1), width=8, heads=2, key_width=4, classes=5)
    >>> P2at(config)(torch.zeros(2, 3, 33, 64)).shape
    torch.Size([2, 5, 33, 64])
    """

    def __init__(self, config: P2atConfig) -> None:
        super().__init__()
        self.config = config
        width, (first, second, third, fourth) = config.width, config.stages
        self.backbone = _residual_network(config)
        self.reduce = activated(fourth, width, 1)
        self.transformer = nn.Sequential(*(TransformerLayer(config) for _ in range(config.layers)))
        self.decode = nn.ModuleList(DecoderBlock(width, kernel) for kernel in (3, 5, 7))
        self.fuse = nn.ModuleList((Fusion(second, third, width), Fusion(first, second, width)))
        self.context = nn.ModuleList(GlobalContext(width) for _ in range(2))
        self.refine = nn.ModuleList(activated(width, width, 3) for _ in range(3))
        self.join = nn.ModuleList(activated(2 * width, width, 3) for _ in range(2))
        self.head = segmentation_head(width, config.classes)
        heads = 2 if config.auxiliary else 0
        self.auxiliary = nn.ModuleList(segmentation_head(width, config.classes) for _ in range(heads))

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """(B, K, Y, X)."""
        return self.all_logits(x_BCYX)[0]

    def all_logits(self, x_BCYX: Tensor) -> list[Tensor]:
        """(B, K, Y, X) of the head, then of those that only training uses: a loss for each."""
        first, second, third, fourth = self.backbone(x_BCYX).feature_maps
        decoded = [self.decode[0](self.transformer(self.reduce(fourth)))]
        fused: list[Tensor] = []
        for place, (fine, between) in enumerate(((second, third), (first, second))):
            fused.append(self.fuse[place](fine, between, decoded[-1]))
            decoded.append(self.decode[place + 1](self.context[place](fused[-1])))
        x = self.refine[2](decoded[2])
        for place, (coarser, refine) in enumerate(((decoded[1], self.refine[1]), (decoded[0], self.refine[0]))):
            x = refine(self.join[place](torch.cat([resized(coarser, x), x], 1)))
        logits = [self.head(x), *(head(one) for head, one in zip(self.auxiliary, fused, strict=False))]
        return [F.interpolate(one, x_BCYX.shape[2:], mode="bilinear", align_corners=True) for one in logits]


def hard_pixel_loss(logits_BKYX: Tensor, classes_BYX: Tensor, *, sure: float = 0.9, keep: int = 131_072) -> Tensor:
    """Mean cross-entropy of the pixels whose own class is less likely than `sure`, or of the `keep` hardest if more.

    Raises: ConfigError: a share outside (0, 1], or fewer than one pixel to keep.
    """
    if not 0 < sure <= 1 or keep < 1:
        raise ConfigError(
            f"hard pixels are those less likely than a share in (0, 1], at least 1, not {sure} and {keep}"
        )
    losses = F.cross_entropy(logits_BKYX, classes_BYX, reduction="none").flatten()
    hardest = losses.sort(descending=True).values
    count = max(int((losses.detach().neg().exp() < sure).sum()), min(keep, len(losses)))
    return hardest[:count].mean()


def activated(inputs: int, width: int, kernel: int, *, groups: int = 1) -> nn.Sequential:
    """A convolution without bias, a batch norm and a rectifier with a learned slope a channel."""
    convolution = nn.Conv2d(inputs, width, kernel, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.PReLU(width))


def segmentation_head(width: int, classes: int) -> nn.Sequential:
    """Logits of every position."""
    return nn.Sequential(
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, classes, 1),
    )


def resized(x_BCYX: Tensor, like_BCYX: Tensor) -> Tensor:
    """On the grid of another map, bilinear."""
    return F.interpolate(x_BCYX, like_BCYX.shape[2:], mode="bilinear")


def _residual_network(config: P2atConfig) -> Any:
    from transformers import ResNetBackbone, ResNetConfig

    return ResNetBackbone(
        ResNetConfig.from_dict(
            {
                "embedding_size": config.stages[0] // (4 if config.bottleneck else 1),
                "hidden_sizes": list(config.stages),
                "depths": list(config.depths),
                "layer_type": "bottleneck" if config.bottleneck else "basic",
                "out_features": ["stage1", "stage2", "stage3", "stage4"],
            }
        )
    )


def _sizes() -> dict[str, Size]:
    rows = {
        "s": ((64, 128, 256, 512), (2, 2, 2, 2), False, 12_811_169),
        "m": ((64, 128, 256, 512), (3, 4, 6, 3), False, 22_919_329),
        "l": ((256, 512, 1024, 2048), (3, 4, 6, 3), True, 25_351_585),
    }
    sizes = {}
    for name, (stages, depths, bottleneck, parameters) in rows.items():
        for auxiliary, label in ((True, name), (False, f"{name}-without-auxiliary")):
            config = P2atConfig(stages=stages, depths=depths, bottleneck=bottleneck, auxiliary=auxiliary)
            count = parameters if auxiliary else parameters - 75_670
            sizes[label] = Size(config=config, parameters=count, said=f"{count / 1e6:.3f}M in the published code")
    return sizes


P2AT = MODELS.add(
    "p2at",
    Companion(
        title="P2AT: Pyramid Pooling Axial Transformer for Real-time Semantic Segmentation",
        source="Elhassan et al., 2023, arXiv:2310.15025",
        summary="segmentation by a residual network, attention among rows and columns and a decoder of three scales",
        build=P2at,
        sizes=_sizes(),
        config=P2atConfig,
        toy=P2atConfig(stages=(4, 8, 8, 8), depths=(1, 1, 1, 1), width=8, heads=2, key_width=4, classes=5),
        example=lambda config: (picture_batch(33, 64),),
        done=(
            "the three models, in training with their two further heads, on transformers' residual networks",
            "the loss of hard pixels",
            "layers, fusion, context and heads, within 1e-13 of the published code when compared with its weights",
        ),
        left_out=("training on Cityscapes and CamVid, and weights of the residual networks",),
        claim="attention among rows and columns gives a convolutional network what it lacks: context along both axes",
        limits=(
            "three averages are read as the paper says; the published code reads the first twice and the second never: "
            "legacy_pool=True does so, too",
            "a row and a column are known by their means: which of their positions caused a response is not",
        ),
    ),
)
