"""ACE-Step: blocks over seconds of sound, windowed and full attention by turns."""

from .family import Family, Stack, keys_of, register_family

register_family(
    Family(
        name="ace_step",
        transformers=("AceStepTransformer1DModel",),
        stacks=(Stack(path="layers", attention=("self_attn",), shared=("position_embeddings", "attention_mask")),),
        moving=("timestep_r",),
        constant=(
            "condition_embedder",
            *keys_of("layers.*.cross_attn"),
        ),
        for_blocks=(
            "proj_in_conv",
            "condition_embedder",
            "time_embed.time_proj",
            "time_embed_r.time_proj",
        ),
    )
)
