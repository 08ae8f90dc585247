"""Language models of flash-linear-attention: GLA, RetNet, HGRN, HGRN-2, DeltaNet, gated DeltaNet, and hybrids of them.

Its models norm with a constant of 1e-6 and most have a head of their own: create with `norm_eps=1e-6, tied=False`;
those of HGRN and HGRN-2 have lower bounds of their gates: `lower_bounds=True`.
"""

from __future__ import annotations

from ...weights import Weights, layout, renamed
from ..hybrid import FULL, HybridLanguageModel

RULES = (
    (r"^model\.", ""),
    (r"^(?:embeddings|embed_tokens)\.", "tokens."),
    (r"^lm_head\.", "head."),
    (r"^layers\.", "blocks."),
    (r"\.attn_norm\.", ".norm1."),
    (r"\.mlp_norm\.", ".norm2."),
    (r"\.mlp\.(gate|up|down)_proj\.", r".feed_forward.\1."),
    (r"\.attn\.", ".mixer."),
    (r"\.(?:g_norm_swish_gate|g_norm|o_norm)\.", ".norm."),
    (r"\.gk_proj\.", ".decay."),
    (r"\.o_proj\.", ".out."),
    (r"\.g_proj\.", ".gate."),
    (r"\.b_proj\.", ".beta."),
    (r"\.a_proj\.", ".rate."),
    (r"\.A_log$", ".log_speed"),
    (r"\.dt_bias$", ".rate_bias"),
    (r"\.q_conv1d\.", ".convolutions.0."),
    (r"\.k_conv1d\.", ".convolutions.1."),
    (r"\.v_conv1d\.", ".convolutions.2."),
    (r"\.q_proj\.", ".query."),
    (r"\.f_proj\.", ".forget."),
    (r".*\.rotary\..*", ""),
)
NAMES = {"hgrn": {"i_proj": "value"}, "hgrn2": {"i_proj": "value"}}
"""What a letter of a layer stands for where it is not the same in all."""


@layout(HybridLanguageModel)
def hybrid(weights: Weights, model: HybridLanguageModel) -> Weights:
    """Names alone; a head that is the embedding is left out where the model has none of its own."""
    taken = renamed(weights, RULES)
    for i, kind in enumerate(model.config.layer_types):
        names = {"k_proj": "key", "v_proj": "value"} | ({} if kind == FULL else NAMES.get(kind, {}))
        taken = renamed(taken, [(rf"^blocks\.{i}\.mixer\.{theirs}\.", f"blocks.{i}.mixer.{ours}.")
                                for theirs, ours in names.items()])  # fmt: skip
    if model.config.tied and taken.get("head.weight") is not None and "tokens.weight" in taken:
        if taken["head.weight"].equal(taken["tokens.weight"]):
            del taken["head.weight"]
    return taken
