"""Latte: a block within every frame, then one along time at every place, by turns."""

from .family import Family, Stack, keys_of, register_family

register_family(
    Family(
        name="latte",
        transformers=("LatteTransformer3DModel",),
        stacks=(
            Stack(path="transformer_blocks", conditioning=("timestep",), folded=True),
            Stack(path="temporal_transformer_blocks", conditioning=("timestep",), folded=True),
        ),
        interleaved=True,
        constant=(
            "caption_projection",
            *keys_of("transformer_blocks.*.attn2"),
        ),
        for_blocks=(
            "pos_embed",
            "caption_projection",
            "adaln_single.linear",
        ),
    )
)
