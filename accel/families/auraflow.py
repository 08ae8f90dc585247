"""AuraFlow: joint blocks on two streams, then single blocks on their concatenation."""

from .family import TEXT_THEN_IMAGE, Family, Stack, register_family

register_family(
    Family(
        name="auraflow",
        transformers=("AuraFlowTransformer2DModel",),
        stacks=(
            Stack(path="joint_transformer_blocks", returns=TEXT_THEN_IMAGE),
            Stack(path="single_transformer_blocks"),
        ),
        constant=("context_embedder",),
        for_blocks=(
            "pos_embed",
            "context_embedder",
        ),
    )
)
