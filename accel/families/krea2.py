"""Krea 2: one stack over text and picture in one sequence, grouped keys."""

from .family import Family, Stack, register_family

register_family(
    Family(
        name="krea2",
        transformers=("Krea2Transformer2DModel",),
        stacks=(Stack(path="transformer_blocks"),),
        constant=(
            "text_fusion",
            "txt_in",
        ),
        for_blocks=(
            "img_in",
            "txt_in",
            "text_fusion",
            "time_mod_proj",
            "rotary_emb",
        ),
    )
)
