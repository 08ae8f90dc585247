"""HunyuanDiT: cross-attention blocks; the later half is handed what the first half made (long skips)."""

from .family import Family, Stack, register_family

register_family(
    Family(
        name="hunyuan_dit",
        transformers=("HunyuanDiT2DModel",),
        stacks=(Stack(path="blocks", attention=("attn1",)),),
    )
)
