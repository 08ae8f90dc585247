"""Mochi: joint text and video blocks; the last one drops the text."""

from .family import IMAGE_THEN_TEXT, Family, Stack, register_family

register_family(
    Family(
        name="mochi",
        transformers=("MochiTransformer3DModel",),
        stacks=(Stack(path="transformer_blocks", returns=IMAGE_THEN_TEXT, text="end"),),
        constant=(
            "time_embed.pooler",
            "time_embed.caption_proj",
        ),
        for_blocks=(
            "patch_embed",
            "time_embed.caption_proj",
            "rope",
        ),
    )
)
