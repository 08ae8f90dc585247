"""Chroma: FLUX's double and single blocks, single blocks on one concatenated sequence."""

from .family import TEXT_THEN_IMAGE, Family, Stack, register_family
from .grids import by_positions

register_family(
    Family(
        name="chroma",
        transformers=("ChromaTransformer2DModel",),
        stacks=(
            Stack(path="transformer_blocks", returns=TEXT_THEN_IMAGE),
            Stack(path="single_transformer_blocks"),
        ),
        grid=by_positions,
        numbered=True,  # modulations of all blocks are computed at once, and handed out by place
        constant=("context_embedder",),
        for_blocks=(
            "x_embedder",
            "context_embedder",
            "pos_embed",
        ),
    )
)
