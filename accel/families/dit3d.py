"""DiT-3D: class-conditional blocks over patches of voxels, guidance batched in one tensor."""

from .family import Family, Stack, register_family

register_family(
    Family(
        name="dit3d",
        transformers=("DiT3DTransformerModel",),
        stacks=(Stack(path="transformer_blocks", conditioning=("timestep",)),),
        for_blocks=("proj_in",),
    )
)
