"""LEGO (`outpace.pipelines.lego`): a block is a whole brick; one that is skipped hands on the answer before it."""

from .family import Family, Stack, register_family

register_family(
    Family(
        name="lego",
        transformers=("LegoTransformer2DModel",),
        stacks=(Stack(path="bricks", dense="it stays within patches"),),
        moving=("shift",),  # where a step's windows lie
        for_blocks=("condition",),
    )
)
