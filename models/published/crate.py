"""CRATE's weights, as its repository has them."""

from __future__ import annotations

from ...weights import Weights, layout, renamed
from ..crate import Crate

RULES = (
    (r"^to_patch_embedding\.([123])\.", lambda found: f"embed.{int(found[1]) - 1}."),
    (r"^pos_embedding$", "positions"),
    (r"^cls_token$", "class_token"),
    (r"^transformer\.layers\.(\d+)\.([01])\.norm\.", lambda found: f"layers.{found[1]}.norm{int(found[2]) + 1}."),
    (r"^transformer\.layers\.(\d+)\.0\.fn\.qkv\.", r"layers.\1.attention.subspaces."),
    (r"^transformer\.layers\.(\d+)\.0\.fn\.to_out\.0\.", r"layers.\1.attention.out."),
    (r"^transformer\.layers\.(\d+)\.1\.fn\.weight$", r"layers.\1.coding.dictionary"),
    (r"^mlp_head\.", "head."),
)


@layout(Crate)
def crate(weights: Weights, model: Crate) -> Weights:
    """Names alone."""
    return renamed(weights, RULES)
