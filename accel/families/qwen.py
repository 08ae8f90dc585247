"""Qwen-Image: joint blocks all the way; Qwen-Image 2.1: one sequence of text, references and picture over a cache."""

from .family import TEXT_THEN_IMAGE, Family, Stack, register_family
from .grids import by_shapes

register_family(
    Family(
        name="qwen",
        transformers=("QwenImageTransformer2DModel",),
        stacks=(Stack(path="transformer_blocks", returns=TEXT_THEN_IMAGE),),
        grid=by_shapes,
        constant=(
            "txt_norm",
            "txt_in",
        ),
        for_blocks=(
            "img_in",
            "txt_norm",
            "txt_in",
            "pos_embed",
        ),
    )
)
register_family(
    Family(
        name="qwen21",
        transformers=("QwenImage21Transformer2DModel",),
        stacks=(
            Stack(path="transformer_blocks", shared=("rotary_emb", "target_token_mask"), trailing=("modulation",)),
        ),
        cache="kv_cache",
        always=lambda call: call.get("kv_cache_mode") == "extract",
        grid=by_shapes,
        constant=("txt_in",),
        for_blocks=(
            "img_in",
            "txt_in",
            "pos_embed",
            "modulation",
        ),
    )
)
