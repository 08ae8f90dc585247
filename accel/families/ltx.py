"""LTX-Video: one stack; LTX-2: a video and its sound in every block, each read by the other."""

from .family import Family, Stack, keys_of, register_family
from .grids import by_sizes

register_family(
    Family(
        name="ltx",
        transformers=("LTXVideoTransformer3DModel",),
        # Its rotary embedding carries the batch.
        stacks=(Stack(path="transformer_blocks", shared=()),),
        grid=by_sizes,
        constant=(
            "caption_projection",
            *keys_of("transformer_blocks.*.attn2"),
        ),
        for_blocks=(
            "proj_in",
            "caption_projection",
            "time_embed.linear",
            "rope",
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
        moving=("audio_hidden_states", "sigma", "audio_timestep", "audio_sigma"),
        grid=by_sizes,
        constant=(
            "caption_projection",
            "audio_caption_projection",
            *keys_of("transformer_blocks.*.attn2"),
            *keys_of("transformer_blocks.*.audio_attn2"),
        ),
        for_blocks=(
            "proj_in",
            "audio_proj_in",
            "caption_projection",
            "audio_caption_projection",
            "time_embed.linear",
            "audio_time_embed.linear",
            "av_cross_attn_video_scale_shift",
            "av_cross_attn_audio_scale_shift",
            "av_cross_attn_video_a2v_gate",
            "av_cross_attn_audio_v2a_gate",
            "rope",
            "audio_rope",
            "cross_attn_rope",
            "cross_attn_audio_rope",
        ),
    )
)
