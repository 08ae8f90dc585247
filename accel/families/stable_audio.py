"""Stable Audio Open and 3: cross-attention blocks over seconds of sound, global conditions as tokens before it."""

from .family import Family, Stack, keys_of, register_family

register_family(
    Family(
        name="stable_audio",
        transformers=("StableAudioDiTModel",),
        stacks=(Stack(path="transformer_blocks", attention=("attn1",), shared=("rotary_embedding",)),),
        constant=(
            "cross_attention_proj",
            "global_proj",
            *keys_of("transformer_blocks.*.attn2"),
        ),
        for_blocks=(
            "preprocess_conv",
            "proj_in",
            "cross_attention_proj",
            "global_proj",
            "time_proj",
            "timestep_proj",
        ),
    )
)
register_family(
    Family(
        name="stable_audio3",
        transformers=("StableAudio3DiTModel",),
        stacks=(Stack(path="transformer_blocks", attention=("self_attn",), shared=("rope",)),),
        constant=(
            "to_cond_embed",
            "to_global_embed",
            "transformer_blocks.*.cross_attn.to_kv",
            "transformer_blocks.*.cross_attn.k_norm",
            "transformer_blocks.*.to_local_embed",
        ),
        for_blocks=(
            "preprocess_conv",
            "proj_in",
            "to_cond_embed",
            "to_global_embed",
            "global_cond_embedder",
            "timestep_features",
            "to_timestep_embed",
            "rotary_pos_emb",
        ),
    )
)
