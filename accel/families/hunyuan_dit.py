"""HunyuanDiT: cross-attention blocks; the later half is handed what the first half made (long skips)."""

from .family import Family, Stack, keys_of, register_family

register_family(
    Family(
        name="hunyuan_dit",
        transformers=("HunyuanDiT2DModel",),
        stacks=(Stack(path="blocks", attention=("attn1",)),),
        constant=(
            "text_embedder",
            *keys_of("blocks.*.attn2"),
        ),
        for_blocks=(
            "pos_embed",
            "text_embedder",
        ),
    )
)
