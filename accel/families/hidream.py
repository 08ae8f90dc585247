"""HiDream: double blocks, then single blocks, each joined by text of its own."""

from .family import IMAGE_THEN_TEXT, Family, Stack, register_family

register_family(
    Family(
        name="hidream",
        transformers=("HiDreamImageTransformer2DModel",),
        stacks=(
            Stack(
                path="double_stream_blocks", returns=IMAGE_THEN_TEXT, attention=("block.attn1",), text="end", shared=()
            ),
            Stack(path="single_stream_blocks", attention=("block.attn1",), text="end", shared=()),
        ),
        time="timesteps",
        constant=("caption_projection.*",),
        for_blocks=(
            "x_embedder",
            "pe_embedder",
            "caption_projection.*",
        ),
    )
)
