"""PRX: the picture's tokens ask, text and picture answer."""

from .family import Family, Stack, register_family

register_family(
    Family(
        name="prx",
        transformers=("PRXTransformer2DModel",),
        stacks=(
            Stack(
                path="blocks",
                attention=("attention",),
                shared=(),
                dense="its queries are of the picture and its keys of text, too",
            ),
        ),
        constant=(
            "txt_in",
            "blocks.*.attention.txt_kv_proj",
            "blocks.*.attention.norm_added_k",
        ),
        for_blocks=(
            "img_in",
            "txt_in",
            "pe_embedder",
        ),
    )
)
