"""Z-Image: refiners, then one stack over picture and text in one sequence."""

from .family import Family, Stack, register_family

register_family(
    Family(
        name="z_image",
        transformers=("ZImageTransformer2DModel",),
        stacks=(
            Stack(
                path="layers",
                hidden="x",
                returns=("x",),
                attention=("attention",),
                text="end",
                shared=(),
                conditioning=("adaln_input",),
            ),
        ),
        latents="x",
        time="t",
        constant=(
            "cap_embedder",
            "context_refiner.*",
        ),
        for_blocks=(
            "all_x_embedder.*",
            "cap_embedder",
            "noise_refiner.*",
            "context_refiner.*",
        ),
    )
)
