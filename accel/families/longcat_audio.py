"""LongCat-AudioDiT: cross-attention blocks over seconds of sound."""

from .family import Family, Stack, register_family

register_family(
    Family(
        name="longcat_audio",
        transformers=("LongCatAudioDiTTransformer",),
        stacks=(Stack(path="blocks", attention=("self_attn",), shared=("rope", "cond_rope")),),
        constant=(
            "text_embed",
            "text_conv_layer",
            "latent_embed",
            "blocks.*.cross_attn.to_k",
            "blocks.*.cross_attn.to_v",
            "blocks.*.cross_attn.k_norm",
        ),
        for_blocks=(
            "rotary_embed",
            "adaln_global_mlp",
        ),
    )
)
