"""DLGSANet's and CRAFT's weights, as their repositories have them (both on BasicSR)."""

from __future__ import annotations

from ...weights import Weights, layout, renamed
from ..craft import Craft
from ..dlgsanet import Dlgsanet

NETWORK = ((r"\.project_in\.", ".up."), (r"\.dwconv\.", ".mix."), (r"\.project_out\.", ".down."))
DLGSANET = (
    (r"^overlap_embed\.0\.proj\.", "first."),
    (r"^deep_feature_extraction\.(\d+)\.body\.(\d+)\.", r"body.\1.\2."),
    (r"^deep_feature_extraction\.(\d+)\.", r"body.\1."),
    (r"^upsample\.0\.", "last.0."),
    (r"\.norm3\.", ".norm1."),
    (r"\.norm4\.", ".norm2."),
    (r"\.body\.(weight|bias)$", r".\1"),
    (r"\.IDynamicDWConv\.conv0\.", ".mixer.before."),
    (r"\.IDynamicDWConv\.conv1\.", ".mixer.after."),
    (r"\.IDynamicDWConv\.conv\.conv1\.([01])\.", r".mixer.filters.\1."),
    (r"\.IDynamicDWConv\.conv\.conv2\.0\.", ".mixer.filters.2."),
    (r"\.restormer_attn\.temperature", ".mixer.temperature_H"),
    (r"\.restormer_attn\.qkv\.", ".mixer.query_key_value."),
    (r"\.restormer_attn\.qkv_dwconv\.", ".mixer.mix."),
    (r"\.restormer_attn\.project_out\.", ".mixer.out."),
    *((rf"\.(?:IDynamic|restormer)_ffn{theirs}", f".network{ours}") for theirs, ours in NETWORK),
)
CRAFT = (
    (r"^(?:relative_position_index|biases|rpi|attn_mask|mean).*", ""),
    (r"^conv_first\.", "first."),
    (r"^upsample\.0\.", "last.0."),
    (
        r"^layers\.(\d+)\.residual_group\.srwa_blocks\.(\d+)\.",
        lambda found: f"body.{found[1]}.{int(found[2]) // 2}.low.{int(found[2]) % 2}.",
    ),
    (r"^layers\.(\d+)\.residual_group\.hfer_blocks\.(\d+)\.", r"body.\1.\2.high."),
    (r"^layers\.(\d+)\.residual_group\.hf_blocks\.(\d+)\.", r"body.\1.\2.fusion."),
    (r"\.qkv\.", ".query_key_value."),
    (r"\.proj\.", ".out."),
    (r"\.get_v\.", ".local."),
    (r"\.attns\.([01])\.pos\.pos_proj\.", r".positions.\1.layers.0."),
    (
        r"\.attns\.([01])\.pos\.pos([123])\.([02])\.",
        lambda found: f".positions.{found[1]}.layers.{3 * int(found[2]) - 2 + int(found[3])}.",
    ),
    (r"\.mlp\.fc1\.", ".network.0."),
    (r"\.mlp\.fc2\.", ".network.2."),
    (r"\.high\.conv\.", ".high.local."),
    (r"\.high\.fc\.", ".high.largest."),
    (r"\.high\.last_fc\.", ".high.out."),
    (r"\.body\.(weight|bias)$", r".\1"),
    (r"\.attn\.temperature", ".temperature_H"),
    (r"\.attn\.q\.", ".query.0."),
    (r"\.attn\.q_dwconv\.", ".query.1."),
    (r"\.attn\.kv\.", ".key_value.0."),
    (r"\.attn\.kv_dwconv\.", ".key_value.1."),
    (r"\.attn\.project_out\.", ".out."),
    *((rf"\.ffn{theirs}", f".network{ours}") for theirs, ours in NETWORK),
)


@layout(Dlgsanet)
def dlgsanet(weights: Weights, model: Dlgsanet) -> Weights:
    """Names alone."""
    return renamed(weights, DLGSANET)


@layout(Craft)
def craft(weights: Weights, model: Craft) -> Weights:
    """Names alone; what is computed from the size of a window is left out."""
    groups, blocks = model.config.groups, model.config.blocks
    ends = (
        (r"^norm\.body\.", f"body.{groups}."),
        (r"^conv_after_body\.", f"body.{groups + 1}."),
        (r"^layers\.(\d+)\.conv\.", rf"body.\1.{blocks}."),
    )
    return renamed(weights, (*ends, *CRAFT))
