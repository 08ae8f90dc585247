"""Qwen-Image: joint blocks all the way, cond and uncond in separate calls."""

from .family import TEXT_THEN_IMAGE, Family, Stack, register_family

register_family(
    Family(
        name="qwen",
        transformers=("QwenImageTransformer2DModel",),
        stacks=(Stack(path="transformer_blocks", returns=TEXT_THEN_IMAGE),),
    )
)
