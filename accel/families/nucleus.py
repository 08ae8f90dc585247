"""NucleusMoE-Image: the text is read, never written; the feed-forwards are mixtures of experts."""

from .family import Family, Stack, register_family
from .grids import by_shapes

register_family(
    Family(
        name="nucleus",
        transformers=("NucleusMoEImageTransformer2DModel",),
        stacks=(Stack(path="transformer_blocks", dense="its queries are of the picture and its keys of text, too"),),
        grid=by_shapes,
        constant=(
            "txt_norm",
            "transformer_blocks.*.encoder_proj",
            "transformer_blocks.*.attn.add_k_proj",
            "transformer_blocks.*.attn.add_v_proj",
            "transformer_blocks.*.attn.norm_added_k",
        ),
        for_blocks=(
            "img_in",
            "txt_norm",
            "pos_embed",
        ),
    )
)
