"""CogVideoX and ConsisID: joint text and video blocks."""

from .family import IMAGE_THEN_TEXT, Family, Stack, register_family

register_family(
    Family(
        name="cogvideox",
        transformers=("CogVideoXTransformer3DModel", "ConsisIDTransformer3DModel"),
        stacks=(Stack(path="transformer_blocks", returns=IMAGE_THEN_TEXT),),
        frames_first=True,
        constant=("patch_embed.text_proj",),
        for_blocks=("patch_embed",),
    )
)
