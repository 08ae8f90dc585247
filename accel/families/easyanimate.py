"""EasyAnimate: joint video and text blocks."""

from .family import IMAGE_THEN_TEXT, Family, Stack, register_family

register_family(
    Family(
        name="easyanimate",
        transformers=("EasyAnimateTransformer3DModel",),
        stacks=(Stack(path="transformer_blocks", returns=IMAGE_THEN_TEXT, attention=("attn1",)),),
        constant=("text_proj",),
        for_blocks=(
            "proj",
            "text_proj",
            "rope_embedding",
        ),
    )
)
