"""HunyuanVideo, 1.5, Framepack and HunyuanImage: double, then single blocks, text after the picture."""

from .family import IMAGE_THEN_TEXT, Family, Stack, register_family

register_family(
    Family(
        name="hunyuan",
        transformers=(
            "HunyuanVideoTransformer3DModel",
            "HunyuanVideoFramepackTransformer3DModel",
            "HunyuanImageTransformer2DModel",
        ),
        stacks=(
            Stack(path="transformer_blocks", returns=IMAGE_THEN_TEXT, text="end"),
            Stack(path="single_transformer_blocks", returns=IMAGE_THEN_TEXT, text="end"),
        ),
        moving=("timestep_r",),
        constant=(
            "time_text_embed.text_embedder",
            "context_embedder.proj_in",
            "image_projection",
        ),
        for_blocks=(
            "x_embedder",
            "clean_x_embedder",
            "context_embedder",
            "image_projection",
            "rope",
        ),
    )
)
register_family(
    Family(
        name="hunyuan15",
        transformers=("HunyuanVideo15Transformer3DModel",),
        stacks=(Stack(path="transformer_blocks", returns=IMAGE_THEN_TEXT, text="end"),),
        moving=("timestep_r",),
        constant=(
            "context_embedder.proj_in",
            "context_embedder_2",
            "image_embedder",
        ),
        for_blocks=(
            "x_embedder",
            "image_embedder",
            "context_embedder",
            "context_embedder_2",
            "cond_type_embed",
            "rope",
        ),
    )
)
