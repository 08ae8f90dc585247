"""VDT: attention over time and within frames in one block; whole clips go in, so a frame is never forecast alone."""

from .family import Family, Stack, register_family

register_family(
    Family(
        name="vdt",
        transformers=("VDTTransformer3DModel",),
        stacks=(Stack(path="transformer_blocks", shared=("positions",), conditioning=("timestep",)),),
        for_blocks=("pos_embed",),
    )
)
