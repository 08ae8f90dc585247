"""RFD4-Proteina: tokens of a protein under biases of its pairs, which are updated between the blocks."""

from .family import Family, Stack, register_family

register_family(
    Family(
        name="proteina",
        transformers=("RFD4ProteinaTransformer",),
        stacks=(
            Stack(
                path="transformer_layers",
                hidden="values",
                returns=("values",),
                attention=(),
                dense="it is biased by pairs of residues",
            ),
        ),
        latents="bb_ca",
        time="bb_ca_time",
        moving=("local_latents", "local_latents_time"),
        # Recycling runs all blocks again inside one call, on what they gave before.
        always=lambda call: (call.get("recycle_depth") or 0) > 1,
        for_blocks=(
            "init_repr_factory",
            "cond_factory",
            "transition_c_1",
            "transition_c_2",
            "pair_repr_builder",
        ),
    )
)
