"""Swin: transformers' own model, whose attention in windows is ours.

Source: Liu et al., 2021, arXiv:2103.14030.
Shapes: B batch, W windows, H heads, P positions of a window, D width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..errors import ConfigError
from ..kernels.attention import attend
from .companion import MODELS, Companion, Size, check_divides, check_sizes
from .numbers import picture_batch

KERNEL = "outpace_windows"
"""What our attention is called in transformers' attention interface."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SwinSettings:
    """Sizes of a Swin; the defaults are the paper's tiny one."""

    width: int = 96
    """Channels of the first stage; each further stage has twice as many."""
    depths: tuple[int, ...] = (2, 2, 6, 2)
    """Blocks of each stage; every second one has shifted windows."""
    heads: tuple[int, ...] = (3, 6, 12, 24)
    """Of each stage."""
    window: int = 7
    """Positions of a side of a window."""
    patch: int = 4
    """Pixels of a side of a token."""
    picture: int = 224
    """Pixels of a side."""
    channels: int = 3
    """Of a picture."""
    drop_path: float = 0.1
    """Share of blocks skipped in training, at the last block."""
    classes: int = 1000
    """Logits."""

    def __post_init__(self) -> None:
        check_sizes(self)
        if not self.depths or len(self.depths) != len(self.heads):
            raise ConfigError(f"a Swin has a depth and heads for each stage, not {self.depths} and {self.heads}")
        if not self.drop_path < 1:
            raise ConfigError(f"drop_path of a Swin must be in [0, 1), not {self.drop_path}")
        check_divides("pixels of a side over patches", self.picture, self.patch)
        for stage, heads in enumerate(self.heads):
            check_divides(f"channels of stage {stage + 1} over heads", self.width * 2**stage, heads)


def build_swin(settings: SwinSettings) -> nn.Module:
    """transformers' `SwinForImageClassification` with fresh weights, on our attention.

    >>> model = build_swin(SwinSettings(width=12, depths=(1, 2), heads=(3, 6), window=4, picture=32, classes=5))
    >>> import torch
    >>> model(torch.zeros(1, 3, 32, 32)).logits.shape
    torch.Size([1, 5])
    """
    from transformers import SwinConfig, SwinForImageClassification

    config = SwinConfig(
        image_size=settings.picture,
        patch_size=settings.patch,
        num_channels=settings.channels,
        embed_dim=settings.width,
        depths=list(settings.depths),
        num_heads=list(settings.heads),
        window_size=settings.window,
        drop_path_rate=settings.drop_path,
    )
    config.num_labels = settings.classes
    model = use_our_attention(SwinForImageClassification(config))
    model.settings = settings
    return model


def use_our_attention(model: Any) -> Any:
    """The same model of transformers (any whose attention goes through its interface), attending by `attend`."""
    from transformers import AttentionInterface

    AttentionInterface.register(KERNEL, _attention)
    model.set_attn_implementation(KERNEL)
    return model


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """q, k, v (B W, H, P, D) of every window; the mask is the bias for positions and what a shift sets apart."""
    if dropout and module.training:
        raise ConfigError(
            f"our window attention drops no weights; set attention_probs_dropout_prob to 0, not {dropout}"
        )
    return attend(query, key, value, bias=attention_mask, scale=scaling).transpose(1, 2), None


def _size(parameters: int, said: str, width: int, third: int, first_heads: int, *, large: bool = False) -> Size:
    settings = SwinSettings(
        width=width,
        depths=(2, 2, third, 2),
        heads=(first_heads, 2 * first_heads, 4 * first_heads, 8 * first_heads),
        window=12 if large else 7,
        picture=384 if large else 224,
    )
    return Size(config=settings, parameters=parameters, said=said)


SWIN = MODELS.add(
    "swin",
    Companion(
        title="Swin Transformer: Hierarchical Vision Transformer using Shifted Windows",
        source="Liu et al., 2021, arXiv:2103.14030",
        summary="attention in windows that move by half a window every second block: transformers' model, our kernel",
        build=build_swin,
        sizes={
            "tiny": _size(28_288_354, "29M", 96, 6, 3),
            "small": _size(49_606_258, "50M", 96, 18, 3),
            "base": _size(87_768_224, "88M", 128, 18, 4),
            "base-384": _size(87_903_584, "88M", 128, 18, 4, large=True),
            "large": _size(196_532_476, "197M", 192, 18, 6),
            "large-384": _size(196_735_516, "197M", 192, 18, 6, large=True),
        },
        config=SwinSettings,
        toy=SwinSettings(width=12, depths=(1, 2), heads=(3, 6), window=4, picture=32, classes=5),
        example=lambda settings: (picture_batch(settings.picture, channels=settings.channels),),
        done=(
            "weights of the published code and of timm (`outpace.models.load_published`)",
            "our attention in transformers' Swin through its attention interface, and in any model that has one",
            "the windows, shifts, masks and bias as one kernel, equal to transformers' layer",
        ),
        left_out=("training on ImageNet, detection and segmentation",),
        claim="shifted windows connect what windows set apart",
        limits=("transformers pads a map that windows do not fill with tokens that are seen; our kernel hides them",),
    ),
)
