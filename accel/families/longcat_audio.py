"""LongCat-AudioDiT: cross-attention blocks over seconds of sound."""

from .family import Family, Stack, register_family

register_family(
    Family(
        name="longcat_audio",
        transformers=("LongCatAudioDiTTransformer",),
        stacks=(Stack(path="blocks", attention=("self_attn",), shared=("rope", "cond_rope")),),
    )
)
