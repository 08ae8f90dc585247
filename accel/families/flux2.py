"""FLUX.2: double blocks, then single blocks on one concatenated sequence."""

from .family import TEXT_THEN_IMAGE, Family, Stack, register_family
from .grids import by_positions

register_family(
    Family(
        name="flux2",
        transformers=("Flux2Transformer2DModel",),
        stacks=(
            Stack(path="transformer_blocks", returns=TEXT_THEN_IMAGE, conditioning=("temb_mod_img",)),
            # One modulation serves the whole batch when the timestep does; its first size is 1 then, not the batch.
            Stack(path="single_transformer_blocks", conditioning=("temb_mod",)),
        ),
        # The pipeline that keeps the keys of its reference pictures.
        cache="kv_cache",
        always=lambda call: call.get("kv_cache_mode") == "extract",
        grid=by_positions,
        constant=("context_embedder",),
        for_blocks=(
            "x_embedder",
            "context_embedder",
            "pos_embed",
            "double_stream_modulation_img",
            "double_stream_modulation_txt",
            "single_stream_modulation",
        ),
    )
)
