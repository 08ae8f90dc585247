"""FLUX.3: blocks of the picture alone, then joint blocks with the text; the text's own blocks see no timestep."""

from .family import TEXT_THEN_IMAGE, Family, Stack, register_family
from .grids import by_positions

register_family(
    Family(
        name="flux3",
        transformers=("Flux3Transformer2DModel",),
        stacks=(
            Stack(path="mode_blocks.image", conditioning=("temb_mod",)),
            Stack(path="single_transformer_blocks", returns=TEXT_THEN_IMAGE, conditioning=("temb_mod",)),
        ),
        grid=by_positions,
        constant=(
            "context_embedder",
            "pos_embed",
            "early_stream_modulations.txt",
            "early_stream_modulations.image_cond",
            "single_stream_modulations.txt",
            "single_stream_modulations.image_cond",
            "x_embedders.image_cond",
            "txt_mode_blocks.*",
            "mode_blocks.image_cond.*",
        ),
        for_blocks=(
            "x_embedders.*",
            "context_embedder",
            "pos_embed",
            "early_stream_modulations.*",
            "single_stream_modulations.*",
            "mode_blocks.image_cond.*",
            "txt_mode_blocks.*",
        ),
    )
)
