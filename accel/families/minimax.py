"""MiniMax-H3: video, sound and text packed in one sequence; MiniMax-Music 3: one stack over seconds of sound."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .family import Family, Named, Stack, register_family

if TYPE_CHECKING:
    from torch import Tensor


def video_and_sound(call: Named) -> dict[str, Tensor]:
    """Where the tokens of the two lie in the packed sequence."""
    return {"picture": call["video_indices"], "audio": call["audio_indices"]}


register_family(
    Family(
        name="minimax_h3",
        transformers=("MiniMaxH3Transformer3DModel",),
        stacks=(
            Stack(path="transformer_blocks", split=video_and_sound, shared=("temb", "adaln_indices", "rotary_emb")),
        ),
        moving=("audio_hidden_states",),
        constant=(
            "context_embedder",
            "token_refiner",
        ),
        for_blocks=(
            "proj_in",
            "audio_proj_in",
            "context_embedder",
            "token_refiner",
            "rope",
        ),
    )
)
register_family(
    Family(
        name="minimax_music",
        transformers=("MiniMaxMusic3Transformer1DModel",),
        stacks=(Stack(path="transformer_blocks"),),
        for_blocks=(
            "preprocess_conv",
            "proj_in",
            "time_proj",
            "time_embed",
            "rotary_emb",
        ),
    )
)
