"""PixArt-alpha and -sigma: cross-attention blocks, guidance batched in one tensor."""

from .family import Family, Stack, keys_of, register_family

register_family(
    Family(
        name="pixart",
        transformers=("PixArtTransformer2DModel",),
        stacks=(Stack(path="transformer_blocks", conditioning=("timestep",)),),
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
