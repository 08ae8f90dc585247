"""Kandinsky 5: cross-attention blocks over a grid of tokens; Kandinsky 6 SR: the same without text."""

from .family import Family, Stack, register_family

register_family(
    Family(
        name="kandinsky5",
        transformers=("Kandinsky5Transformer3DModel",),
        stacks=(
            Stack(
                path="visual_transformer_blocks",
                hidden="visual_embed",
                returns=("visual_embed",),
                attention=("self_attention",),
                shared=("sparse_params",),
            ),
        ),
        frames_first=True,
    )
)
register_family(
    Family(
        name="kandinsky6_sr",
        transformers=("Kandinsky6SRTransformer3DModel",),
        stacks=(
            Stack(
                path="visual_transformer_blocks", attention=("self_attention",), shared=("rotary_emb", "sparse_params")
            ),
        ),
        frames_first=True,
    )
)
