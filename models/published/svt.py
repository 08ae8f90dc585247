"""SVT's weights, as its repository has them."""

from __future__ import annotations

from re import Match

from ...weights import Weights, layout, renamed
from ..svt import Svt

SPECTRAL = tuple(
    (rf"\.attn\.complex_weight_lh_{'b' if kind == 'bias' else ''}{i}{end}$", f".mixer.{ours}.{kind}{i}")
    for end, ours in (("", "over_channels"), ("_t", "along_rows"))
    for kind in ("weight", "bias")
    for i in (1, 2)
)
RULES = (
    *SPECTRAL,
    (r"\.attn\.complex_weight_ll$", ".mixer.gain"),
    (r"\.attn\.conv\.", ".mixer.near."),
    (r"\.attn\.q\.", ".mixer.query."),
    (r"\.attn\.kv\.", ".mixer.key_value."),
    (r"\.attn\.proj\.", ".mixer.out."),
    (r"^(layers.*)\.mlp\.fc1\.", r"\1.feed_forward.up."),
    (r"^(layers.*)\.mlp\.fc2\.", r"\1.feed_forward.down."),
    (r"\.mlp\.dwconv\.dwconv\.", ".feed_forward.neighbours."),
    (r"^post_network\.0\.", "asking."),
    (r"^asking\.mixer\.", "asking.attention."),
    (r"^asking\.mlp\.fc1\.", "asking.feed_forward.0."),
    (r"^asking\.mlp\.fc2\.", "asking.feed_forward.2."),
    (r"^aux_head\.", "dense_head."),
    (r".*\.(?:xfm|ifm)\..*", ""),
)


@layout(Svt)
def svt(weights: Weights, model: Svt) -> Weights:
    """Stages lie in a row here: a convolution and a norm, its blocks, and a norm but for the last."""
    starts, at = [], 9
    for depth in model.config.depths:
        starts.append(at)
        at += 2 + depth + 1
    last = len(starts)

    def down(found: Match[str]) -> str:
        return f"layers.{starts[int(found[1]) - 1] + (found[2] == 'norm')}."

    def block(found: Match[str]) -> str:
        return f"layers.{starts[int(found[1]) - 1] + 2 + int(found[2])}."

    def behind(found: Match[str]) -> str:
        stage = int(found[1])
        return "norm." if stage == last else f"layers.{starts[stage] - 1}."

    return renamed(
        weights,
        [
            (r"^patch_embed1\.conv\.", "layers."),
            (r"^patch_embed(\d)\.(proj|norm)\.", down),
            (r"^block(\d)\.(\d+)\.", block),
            (r"^norm(\d)\.", behind),
            *RULES,
        ],
    )
