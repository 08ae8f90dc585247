"""AnyFlow: Wan's blocks told two times; its causal sibling (FAR) makes a video chunk by chunk over a cache."""

from .family import Family, Stack, keys_of, register_family

register_family(
    Family(
        name="anyflow",
        transformers=("AnyFlowTransformer3DModel",),
        stacks=(Stack(path="blocks"),),
        moving=("r_timestep",),
        frames_first=True,
        constant=(
            "condition_embedder.text_embedder",
            *keys_of("blocks.*.attn2"),
        ),
        for_blocks=(
            "patch_embedding",
            "condition_embedder.time_proj",
            "condition_embedder.text_embedder",
        ),
    )
)
register_family(
    Family(
        name="anyflow_far",
        transformers=("AnyFlowFARTransformer3DModel",),
        stacks=(Stack(path="blocks", attention=(), dense="it takes a mask that only FlexAttention reads"),),
        moving=("r_timestep",),
        frames_first=True,
        cache="kv_cache",
        fills=lambda call: bool((call.get("kv_cache_flag") or {}).get("is_cache_step")),
        constant=(
            "condition_embedder.text_embedder",
            *keys_of("blocks.*.attn2"),
        ),
        for_blocks=(
            "patch_embedding",
            "far_patch_embedding",
            "condition_embedder.time_proj",
            "condition_embedder.text_embedder",
        ),
    )
)
