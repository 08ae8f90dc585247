"""PRX: the picture's tokens ask, text and picture answer."""

from .family import Family, Stack, register_family

register_family(
    Family(
        name="prx",
        transformers=("PRXTransformer2DModel",),
        stacks=(Stack(path="blocks", attention=("attention",), shared=()),),
    )
)
