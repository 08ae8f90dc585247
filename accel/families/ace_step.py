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
    )
)
