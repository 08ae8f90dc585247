"""CogView3+ and CogView4: joint text and image blocks."""

from .family import IMAGE_THEN_TEXT, Family, Stack, register_family

register_family(
    Family(
        name="cogview",
        transformers=("CogView3PlusTransformer2DModel", "CogView4Transformer2DModel"),
        stacks=(Stack(path="transformer_blocks", returns=IMAGE_THEN_TEXT, conditioning=("temb", "emb")),),
        constant=("patch_embed.text_proj",),
        for_blocks=(
            "patch_embed",
            "rope",
        ),
    )
)
