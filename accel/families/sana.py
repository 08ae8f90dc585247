"""Sana and Sana-Video: linear-attention blocks."""

from .family import Family, Stack, keys_of, register_family

register_family(
    Family(
        name="sana",
        transformers=("SanaTransformer2DModel", "SanaVideoTransformer3DModel"),
        stacks=(Stack(path="transformer_blocks", conditioning=("timestep",), dense="it is linear"),),
        constant=(
            "caption_projection",
            "caption_norm",
            *keys_of("transformer_blocks.*.attn2"),
        ),
        for_blocks=(
            "patch_embed",
            "patch_embedding",
            "rope",
            "time_embed.linear",
            "caption_projection",
            "caption_norm",
        ),
    )
)
