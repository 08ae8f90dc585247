"""GLM-Image: joint picture and text blocks; keys of reference pictures lie in a cache."""

from .family import IMAGE_THEN_TEXT, Family, Stack, register_family

register_family(
    Family(
        name="glm_image",
        transformers=("GlmImageTransformer2DModel",),
        stacks=(Stack(path="transformer_blocks", returns=IMAGE_THEN_TEXT, attention=("attn1",)),),
        cache="kv_caches",
        fills=lambda call: call.get("kv_caches") is not None and call["kv_caches"][0].mode == "write",
        constant=(
            "glyph_projector",
            "prior_projector",
        ),
        for_blocks=(
            "image_projector",
            "glyph_projector",
            "prior_token_embedding",
            "prior_projector",
            "rope",
        ),
    )
)
