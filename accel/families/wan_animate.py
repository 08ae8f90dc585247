"""Wan-Animate 2: Wan's blocks over a cache of the driving video's keys; the unguided branch leaves one block out."""

from .family import Family, Stack, keys_of, register_family

register_family(
    Family(
        name="wan_animate2",
        transformers=("WanAnimate2Transformer3DModel",),
        stacks=(
            Stack(
                path="blocks",
                attention=("self_attn",),
                shared=("rotary_emb", "reference_rotary_emb"),
                dense="it ends in FlexAttention",
            ),
        ),
        cache="kv_cache",
        fills=lambda call: call.get("kv_cache_mode") == "extract",
        constant=(
            "text_embedding",
            "img_emb",
            *keys_of("blocks.*.cross_attn"),
        ),
    )
)
