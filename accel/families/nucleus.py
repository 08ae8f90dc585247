"""NucleusMoE-Image: the text is read, never written; the feed-forwards are mixtures of experts."""

from .family import Family, Stack, register_family

register_family(
    Family(
        name="nucleus",
        transformers=("NucleusMoEImageTransformer2DModel",),
        stacks=(Stack(path="transformer_blocks"),),
    )
)
