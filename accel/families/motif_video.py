"""Motif-Video: joint blocks on two streams, with weights for each, then with the same for both; the last of them read
what the others made of the picture in place of the text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .family import IMAGE_THEN_TEXT, Family, Stack, register_family

if TYPE_CHECKING:
    from torch import nn


def readers(transformer: nn.Module) -> slice:
    """The single blocks that read the picture in place of the text."""
    count = len(transformer.single_transformer_blocks)  # pyright: ignore[reportArgumentType]
    return slice(count - transformer.num_decoder_layers, count)  # pyright: ignore


def writers(transformer: nn.Module) -> slice:
    """The single blocks before those."""
    return slice(0, readers(transformer).start)


register_family(
    Family(
        name="motif_video",
        transformers=("MotifVideoTransformer3DModel",),
        stacks=(
            Stack(path="transformer_blocks", returns=IMAGE_THEN_TEXT, text="end"),
            Stack(path="single_transformer_blocks", returns=IMAGE_THEN_TEXT, text="end", span=writers),
            Stack(path="single_transformer_blocks", returns=IMAGE_THEN_TEXT, text="end", span=readers),
        ),
        constant=("context_embedder",),
        for_blocks=(
            "x_embedder",
            "context_embedder",
            "rope",
        ),
    )
)
