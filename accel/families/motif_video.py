"""Motif-Video: joint blocks on two streams, first with weights for each, then with the same for both."""

from .family import IMAGE_THEN_TEXT, Family, Stack, register_family

register_family(
    Family(
        name="motif_video",
        transformers=("MotifVideoTransformer3DModel",),
        stacks=(
            Stack(path="transformer_blocks", returns=IMAGE_THEN_TEXT, text="end"),
            Stack(path="single_transformer_blocks", returns=IMAGE_THEN_TEXT, text="end"),
        ),
    )
)
