"""FLUX.1 and the models built like it (Bria, LongCat-Image, Ovis-Image): double, then single blocks."""

from .family import TEXT_THEN_IMAGE, Family, Stack, register_family
from .grids import by_positions

register_family(
    Family(
        name="flux",
        transformers=(
            "FluxTransformer2DModel",
            "BriaTransformer2DModel",
            "LongCatImageTransformer2DModel",
            "OvisImageTransformer2DModel",
        ),
        stacks=(
            Stack(path="transformer_blocks", returns=TEXT_THEN_IMAGE),
            Stack(path="single_transformer_blocks", returns=TEXT_THEN_IMAGE),
        ),
        grid=by_positions,
        constant=(
            "context_embedder_norm",
            "context_embedder",
            "time_text_embed.text_embedder",
        ),
        for_blocks=(
            "x_embedder",
            "context_embedder_norm",
            "context_embedder",
            "pos_embed",
        ),
    )
)
