"""Wan 2.1 and 2.2, VACE, Animate, SkyReels-V2, ChronoEdit: one stack, cond and uncond in separate calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .family import Family, Stack, keys_of, register_family

if TYPE_CHECKING:
    from torch import nn


def hint_comes_last(transformer: nn.Module) -> bool:
    """True where the control is added behind the last block, where no forecast takes its place."""
    layers = transformer.config["vace_layers"]  # pyright: ignore
    return len(transformer.blocks) - 1 in layers  # pyright: ignore[reportArgumentType]


register_family(
    Family(
        name="wan",
        transformers=(
            "WanTransformer3DModel",
            "SkyReelsV2Transformer3DModel",
            "ChronoEditTransformer3DModel",
            "WanAnimateTransformer3DModel",
        ),
        stacks=(Stack(path="blocks"),),
        constant=(
            "condition_embedder.text_embedder",
            "condition_embedder.image_embedder",
            "pose_patch_embedding",
            "motion_encoder",
            "face_encoder",
            *keys_of("blocks.*.attn2"),
            *keys_of("face_adapter.*"),
        ),
        for_blocks=(
            "patch_embedding",
            "rope",
            "condition_embedder.time_proj",
            "condition_embedder.text_embedder",
            "condition_embedder.image_embedder",
            "pose_patch_embedding",
            "motion_encoder",
            "face_encoder",
        ),
    )
)
register_family(
    Family(
        name="wan_vace",
        transformers=("WanVACETransformer3DModel",),
        stacks=(
            Stack(
                path="vace_blocks",
                hidden="control_hidden_states",
                # What they return first is added between the other blocks: of the tokens' shape, and of no account
                # where a forecast takes the place of all of them.
                returns=("hidden_states", "control_hidden_states"),
                attention=("attn1",),
                unless=hint_comes_last,
            ),
            Stack(path="blocks"),
        ),
        constant=(
            "vace_patch_embedding",
            "condition_embedder.text_embedder",
            "condition_embedder.image_embedder",
            "vace_blocks.*.proj_in",
            *keys_of("vace_blocks.*.attn2"),
            *keys_of("blocks.*.attn2"),
        ),
        for_blocks=(
            "patch_embedding",
            "vace_patch_embedding",
            "rope",
            "condition_embedder.time_proj",
            "condition_embedder.text_embedder",
        ),
    )
)
