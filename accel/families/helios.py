"""Helios: a video in chunks, each over the ones before it at three resolutions."""

from .family import Family, Stack, keys_of, register_family

register_family(
    Family(
        name="helios",
        transformers=("HeliosTransformer3DModel",),
        stacks=(Stack(path="blocks", attention=("attn1",), shared=()),),
        constant=(
            "patch_short",
            "patch_mid",
            "patch_long",
            "condition_embedder.text_embedder",
            *keys_of("blocks.*.attn2"),
        ),
        for_blocks=(
            "patch_embedding",
            "patch_short",
            "patch_mid",
            "patch_long",
            "rope",
            "condition_embedder.time_proj",
            "condition_embedder.text_embedder",
        ),
    )
)
