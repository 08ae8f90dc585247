"""AnyFlow: Wan's blocks told two times; its causal sibling (FAR) makes a video chunk by chunk over a cache."""

from .family import Family, Stack, register_family

register_family(
    Family(
        name="anyflow",
        transformers=("AnyFlowTransformer3DModel", "AnyFlowFARTransformer3DModel"),
        stacks=(Stack(path="blocks"),),
        frames_first=True,
    )
)
