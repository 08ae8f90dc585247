"""PixArt-alpha and -sigma: cross-attention blocks, guidance batched in one tensor."""

from .family import Family, Stack, register_family

register_family(
    Family(
        name="pixart",
        transformers=("PixArtTransformer2DModel",),
        stacks=(Stack(path="transformer_blocks"),),
    )
)
