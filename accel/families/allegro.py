"""Allegro: cross-attention blocks over a video's patches."""

from .family import Family, Stack, keys_of, register_family

register_family(
    Family(
        name="allegro",
        transformers=("AllegroTransformer3DModel",),
        stacks=(Stack(path="transformer_blocks"),),
        constant=(
            "caption_projection",
            *keys_of("transformer_blocks.*.attn2"),
        ),
        for_blocks=(
            "pos_embed",
            "caption_projection",
            "adaln_single.linear",
        ),
    )
)
