"""LTX-Video: one stack; its rotary embedding carries the batch."""

from .family import Family, Stack, register_family

register_family(
    Family(
        name="ltx",
        transformers=("LTXVideoTransformer3DModel",),
        stacks=(Stack(path="transformer_blocks", shared=()),),
    )
)
