"""AnyFlow: Wan's blocks told two times; its causal sibling (FAR) makes a video chunk by chunk over a cache."""

from .family import Family, Stack, register_family

register_family(
    Family(
        name="anyflow",
        transformers=("AnyFlowTransformer3DModel",),
        stacks=(Stack(path="blocks"),),
        frames_first=True,
    )
)
register_family(
    Family(
        name="anyflow_far",
        transformers=("AnyFlowFARTransformer3DModel",),
        # Its attention takes a mask that only FlexAttention reads.
        stacks=(Stack(path="blocks", attention=()),),
        frames_first=True,
        cache="kv_cache",
        fills=lambda call: bool((call.get("kv_cache_flag") or {}).get("is_cache_step")),
    )
)
