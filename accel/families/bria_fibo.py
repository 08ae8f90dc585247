"""Bria FIBO: double, then single blocks, each with text of its own; FIBO 2: one stack, text let in at some blocks."""

from .family import TEXT_THEN_IMAGE, Family, Stack, keys_of, register_family
from .grids import by_positions

register_family(
    Family(
        name="bria_fibo",
        transformers=("BriaFiboTransformer2DModel",),
        stacks=(
            Stack(path="transformer_blocks", returns=TEXT_THEN_IMAGE),
            Stack(path="single_transformer_blocks"),
        ),
        grid=by_positions,
        constant=(
            "context_embedder",
            "caption_projection.*",
        ),
        for_blocks=(
            "x_embedder",
            "context_embedder",
            "pos_embed",
            "caption_projection.*",
        ),
    )
)
register_family(
    Family(
        name="bria_fibo2",
        transformers=("BriaFibo2Transformer2DModel",),
        stacks=(
            Stack(path="layers", hidden="x", returns=("x",), attention=("attention",), conditioning=("adaln_input",)),
        ),
        constant=(
            "perceiver",
            *keys_of("layers.*.cross_attention"),
        ),
        for_blocks=(
            "x_embedder",
            "noise_refiner.*",
            "perceiver",
        ),
    )
)
