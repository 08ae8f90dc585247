"""Kandinsky 5: cross-attention blocks over a grid of tokens; 6: video beside sound; 6 SR: a video without text."""

from .family import Family, Stack, register_family

register_family(
    Family(
        name="kandinsky5",
        transformers=("Kandinsky5Transformer3DModel",),
        stacks=(
            Stack(
                path="visual_transformer_blocks",
                hidden="visual_embed",
                returns=("visual_embed",),
                attention=("self_attention",),
                shared=("sparse_params",),
            ),
        ),
        frames_first=True,
        constant=(
            "text_embeddings",
            "pooled_text_embeddings",
        ),
        for_blocks=(
            "visual_embeddings",
            "visual_rope_embeddings",
            "text_embeddings",
            "text_rope_embeddings",
            "text_transformer_blocks.*",
        ),
    )
)
register_family(
    Family(
        name="kandinsky6",
        transformers=("Kandinsky6Transformer3DModel",),
        stacks=(
            Stack(
                path="visual_transformer_blocks",
                hidden="vis",
                returns=("vis", "aud"),
                also={"audio": "aud"},
                attention=("video_dec_block.self_attention",),
                shared=("vis_rope", "aud_rope"),
            ),
        ),
        moving=("audio_hidden_states",),
        frames_first=True,
        constant=(
            "video_text_embeddings",
            "video_pooled_text_embeddings",
            "audio_text_embeddings",
            "audio_pooled_text_embeddings",
        ),
        for_blocks=(
            "visual_embeddings",
            "visual_rope_embeddings",
            "audio_embeddings",
            "audio_rope_embeddings",
            "video_text_embeddings",
            "video_text_rope_embeddings",
            "video_text_transformer_blocks.*",
            "audio_text_embeddings",
            "audio_text_rope_embeddings",
            "audio_text_transformer_blocks.*",
        ),
    )
)
register_family(
    Family(
        name="kandinsky6_sr",
        transformers=("Kandinsky6SRTransformer3DModel",),
        stacks=(
            Stack(
                path="visual_transformer_blocks",
                attention=(),
                shared=("rotary_emb", "sparse_params"),
                dense="it is block-sparse by itself",
            ),
        ),
        frames_first=True,
        for_blocks=("visual_embeddings", "visual_rope_embeddings"),
    )
)
