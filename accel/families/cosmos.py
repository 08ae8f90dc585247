"""Cosmos 1, 2 and 2.5: cross-attention blocks over a video's patches."""

from .family import Family, Stack, register_family

register_family(
    Family(
        name="cosmos",
        transformers=("CosmosTransformer3DModel",),
        stacks=(Stack(path="transformer_blocks"),),
    )
)
