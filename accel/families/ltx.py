"""LTX-Video: one stack; LTX-2: a video and its sound in every block, each read by the other."""

from .family import Family, Stack, keys_of, register_family

register_family(
    Family(
        name="ltx",
        transformers=("LTXVideoTransformer3DModel",),
        # Its rotary embedding carries the batch.
        stacks=(Stack(path="transformer_blocks", shared=()),),
        constant=(
            "caption_projection",
            *keys_of("transformer_blocks.*.attn2"),
        ),
    )
)
register_family(
    Family(
        name="ltx2",
        transformers=("LTX2VideoTransformer3DModel",),
        stacks=(
            Stack(
                path="transformer_blocks",
                returns=("hidden_states", "audio_hidden_states"),
                also={"audio": "audio_hidden_states"},
                attention=("attn1",),
                shared=(),
            ),
        ),
        constant=(
            "caption_projection",
            "audio_caption_projection",
            *keys_of("transformer_blocks.*.attn2"),
            *keys_of("transformer_blocks.*.audio_attn2"),
        ),
    )
)
