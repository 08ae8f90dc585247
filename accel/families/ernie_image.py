"""ERNIE-Image: one stack over picture and text, tokens in front and the batch behind them."""

from .family import Family, Stack, register_family

register_family(
    Family(
        name="ernie_image",
        transformers=("ErnieImageTransformer2DModel",),
        stacks=(
            Stack(
                path="layers",
                hidden="x",
                returns=("x",),
                attention=("self_attention",),
                axes={"x": 1, "temb": 1},
                shared=(),
            ),
        ),
        for_blocks=(
            "x_embedder",
            "pos_embed",
            "adaLN_modulation",
        ),
    )
)
