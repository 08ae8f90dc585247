"""MiniMax-Music 3: one stack over seconds of sound."""

from .family import Family, Stack, register_family

register_family(
    Family(
        name="minimax_music",
        transformers=("MiniMaxMusic3Transformer1DModel",),
        stacks=(Stack(path="transformer_blocks"),),
    )
)
