"""Helios: a video in chunks, each over the ones before it at three resolutions."""

from .family import Family, Stack, register_family

register_family(
    Family(
        name="helios",
        transformers=("HeliosTransformer3DModel",),
        stacks=(Stack(path="blocks", attention=("attn1",), shared=()),),
    )
)
