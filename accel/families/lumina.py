"""Lumina-Image 2: refiners, then one stack over text and picture in one sequence; Lumina-Next: cross-attention."""

from .family import Family, Stack, keys_of, register_family

register_family(
    Family(
        name="lumina2",
        transformers=("Lumina2Transformer2DModel",),
        stacks=(Stack(path="layers", shared=()),),
        constant=(
            "time_caption_embed.caption_embedder",
            "context_refiner.*",
        ),
        for_blocks=(
            "x_embedder",
            "time_caption_embed.caption_embedder",
            "noise_refiner.*",
            "context_refiner.*",
        ),
    )
)
register_family(
    Family(
        name="lumina_next",
        transformers=("LuminaNextDiT2DModel",),
        stacks=(Stack(path="layers", attention=("attn1",)),),
        constant=(
            "time_caption_embed.caption_embedder",
            "layers.*.norm1_context",
            *keys_of("layers.*.attn2"),
        ),
        for_blocks=("patch_embedder.proj",),
    )
)
