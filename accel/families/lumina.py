"""Lumina-Image 2: refiners, then one stack over text and picture in one sequence; Lumina-Next: cross-attention."""

from .family import Family, Stack, register_family

register_family(
    Family(
        name="lumina2",
        transformers=("Lumina2Transformer2DModel",),
        stacks=(Stack(path="layers", shared=()),),
    )
)
register_family(
    Family(
        name="lumina_next",
        transformers=("LuminaNextDiT2DModel",),
        stacks=(Stack(path="layers", attention=("attn1",)),),
    )
)
