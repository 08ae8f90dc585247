"""Stable Diffusion 3 and 3.5: joint blocks; the last one drops the text."""

from .family import TEXT_THEN_IMAGE, Family, Stack, register_family

register_family(
    Family(
        name="sd3",
        transformers=("SD3Transformer2DModel",),
        stacks=(Stack(path="transformer_blocks", returns=TEXT_THEN_IMAGE, attention=("attn", "attn2"), text="end"),),
        constant=(
            "context_embedder",
            "time_text_embed.text_embedder",
        ),
        for_blocks=(
            "pos_embed",
            "context_embedder",
        ),
    )
)
