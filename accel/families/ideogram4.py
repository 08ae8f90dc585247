"""Ideogram 4: one stack over text and picture in one sequence."""

from .family import Family, Stack, register_family

register_family(
    Family(
        name="ideogram4",
        transformers=("Ideogram4Transformer2DModel",),
        stacks=(Stack(path="layers", attention=("attention",), shared=(), conditioning=("adaln_input",)),),
        constant=(
            "llm_cond_norm",
            "llm_cond_proj",
        ),
        for_blocks=(
            "input_proj",
            "llm_cond_norm",
            "llm_cond_proj",
            "embed_image_indicator",
            "rotary_emb",
        ),
    )
)
