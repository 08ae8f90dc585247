"""DiT: class-conditional blocks, guidance batched in one tensor, no cache_context."""

from .family import Family, Stack, register_family

register_family(
    Family(
        name="dit",
        transformers=("DiTTransformer2DModel",),
        stacks=(Stack(path="transformer_blocks", conditioning=("timestep",)),),
        for_blocks=("pos_embed",),
    )
)
