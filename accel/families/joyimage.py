"""JoyImage-Edit and -Edit-Plus: joint blocks over the pictures and the text."""

from .family import IMAGE_THEN_TEXT, Family, Stack, register_family

register_family(
    Family(
        name="joyimage",
        transformers=("JoyImageEditTransformer3DModel",),
        stacks=(Stack(path="double_blocks", returns=IMAGE_THEN_TEXT, text="end"),),
        constant=("condition_embedder.text_embedder",),
        for_blocks=(
            "img_in",
            "condition_embedder",
        ),
    )
)
register_family(
    Family(
        name="joyimage_plus",
        transformers=("JoyImageEditPlusTransformer3DModel",),
        # The pictures of a sample differ in shape, so that every sample brings positions of its own.
        stacks=(Stack(path="double_blocks", returns=IMAGE_THEN_TEXT, text="end", shared=()),),
        constant=("condition_embedder.text_embedder",),
        for_blocks=(
            "img_in",
            "condition_embedder",
        ),
    )
)
