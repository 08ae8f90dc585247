"""Stable Audio Open and 3: cross-attention blocks over seconds of sound, global conditions as tokens before it."""

from .family import Family, Stack, register_family

register_family(
    Family(
        name="stable_audio",
        transformers=("StableAudioDiTModel",),
        stacks=(Stack(path="transformer_blocks", attention=("attn1",), shared=("rotary_embedding",)),),
    )
)
register_family(
    Family(
        name="stable_audio3",
        transformers=("StableAudio3DiTModel",),
        stacks=(Stack(path="transformer_blocks", attention=("self_attn",), shared=("rope",)),),
    )
)
