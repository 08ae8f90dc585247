"""Wan 2.1 and 2.2, VACE, Animate, SkyReels-V2, ChronoEdit: one stack, cond and uncond in separate calls."""

from .family import Family, Stack, register_family

register_family(
    Family(
        name="wan",
        transformers=(
            "WanTransformer3DModel",
            "SkyReelsV2Transformer3DModel",
            "ChronoEditTransformer3DModel",
            "WanAnimateTransformer3DModel",
            "WanVACETransformer3DModel",
        ),
        stacks=(Stack(path="blocks"),),
    )
)
