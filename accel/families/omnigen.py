"""OmniGen: one stack over text, reference pictures, time and picture in one sequence."""

from .family import Family, Stack, register_family

register_family(
    Family(
        name="omnigen",
        transformers=("OmniGenTransformer2DModel",),
        stacks=(Stack(path="layers", attention=("self_attn",)),),
        for_blocks=(
            "patch_embedding.output_image_proj",
            "embed_tokens",
            "time_token",
            "rope",
        ),
    )
)
