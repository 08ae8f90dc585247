"""Cosmos 1, 2 and 2.5: cross-attention blocks over a video's patches; Cosmos 3: what is read beside what is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .family import Family, Named, Stack, keys_of, register_family

if TYPE_CHECKING:
    from torch import Tensor


def made(call: Named) -> dict[str, Tensor]:
    """Where video, sound and action lie among the tokens that are made; those that are read come before them."""
    named = {"picture": "vision", "audio": "sound", "action": "action"}
    places = {stream: call.get(f"{kind}_sequence_indexes") for stream, kind in named.items()}
    return {stream: where - call["und_len"] for stream, where in places.items() if where is not None}


register_family(
    Family(
        name="cosmos",
        transformers=("CosmosTransformer3DModel",),
        stacks=(Stack(path="transformer_blocks", attention=("attn1",)),),
        constant=(*keys_of("transformer_blocks.*.attn2"),),
        for_blocks=(
            "patch_embed",
            "learnable_pos_embed",
            "rope",
        ),
    )
)
register_family(
    Family(
        name="cosmos3",
        transformers=("Cosmos3OmniTransformer",),
        stacks=(
            Stack(
                path="layers",
                hidden="gen_seq",
                returns=("und_seq", "gen_seq"),
                split=made,
                attention=("self_attn",),
                # Tokens of one sample, without a batch around them.
                axes={"und_seq": None, "gen_seq": None},
            ),
        ),
        latents="",  # none with a batch
        time="vision_timesteps",
        moving=("vision_tokens", "sound_tokens", "action_tokens", "sound_timesteps", "action_timesteps"),
        for_blocks=(
            "embed_tokens",
            "proj_in",
            "audio_proj_in",
            "time_proj",
            "time_embedder",
            "rotary_emb",
        ),
    )
)
