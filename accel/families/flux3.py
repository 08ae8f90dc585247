"""FLUX.3: blocks of the picture alone, then joint blocks with the text; the text's own blocks see no timestep."""

from .family import TEXT_THEN_IMAGE, Family, Stack, register_family

register_family(
    Family(
        name="flux3",
        transformers=("Flux3Transformer2DModel",),
        stacks=(
            Stack(path="mode_blocks.image"),
            Stack(path="single_transformer_blocks", returns=TEXT_THEN_IMAGE),
        ),
    )
)
