"""Sana-WM: linear and full attention by turns, following a camera; its refiner is LTX-2 without sound."""

from .family import Family, Stack, keys_of, register_family

register_family(
    Family(
        name="sana_wm",
        transformers=("SanaWMTransformer3DModel",),
        stacks=(
            Stack(
                path="blocks",
                hidden="x",
                returns=("x",),
                shared=("rotary_emb",),
                dense="it is linear in most blocks, and full attention follows a camera",
            ),
        ),
        constant=(
            "y_embedder",
            "attention_y_norm",
            "blocks.*.cross_attn.kv_linear",
            "blocks.*.cross_attn.k_norm",
        ),
        for_blocks=(
            "x_embedder",
            "y_embedder",
            "attention_y_norm",
            "t_block",
            "rope",
        ),
    )
)
register_family(
    Family(
        name="sana_wm_refiner",
        transformers=("SanaWMLTX2RefinerTransformer3DModel",),
        stacks=(Stack(path="transformer_blocks", attention=("attn1",), shared=()),),
        cache="kv_cache",
        fills=lambda call: "capture" in (call.get("kv_cache_mode") or ""),
        constant=(
            "caption_projection",
            *keys_of("transformer_blocks.*.attn2"),
        ),
        for_blocks=(
            "proj_in",
            "caption_projection",
            "time_embed.linear",
        ),
    )
)
