"""Sana and Sana-Video: linear-attention blocks."""

from .family import Family, Stack, register_family

register_family(
    Family(
        name="sana",
        transformers=("SanaTransformer2DModel", "SanaVideoTransformer3DModel"),
        stacks=(Stack(path="transformer_blocks"),),
    )
)
