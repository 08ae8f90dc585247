"""Swin's weights, as its repository and timm have them; transformers' own go in by `load_state_dict`."""

from __future__ import annotations

import re

from ...weights import Weights, layout, renamed, split_rows

RULES = (
    (r".*(?:relative_position_index|attn_mask)$", ""),
    (r"^patch_embed\.proj\.", "swin.embeddings.patch_embeddings.projection."),
    (r"^patch_embed\.norm\.", "swin.embeddings.norm."),
    (r"^norm\.", "swin.layernorm."),
    (r"^head\.(?:fc\.)?", "classifier."),
    (r"^layers\.(\d)\.", r"swin.encoder.layers.\1."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.attn\.proj\.", ".attention.o_proj."),
    (
        r"\.attn\.relative_position_bias_table$",
        ".attention.relative_position_bias.relative_position_bias_table",
    ),
)


@layout("SwinForImageClassification")
def swin(weights: Weights, model: object) -> Weights:
    """Queries, keys and values are one matrix there; timm counts the halving of a grid to the stage after it."""
    stages = {int(found[1]) for name in weights if (found := re.match(r"layers\.(\d)\.downsample\.", name))}
    if stages and 0 not in stages:
        weights = renamed(
            weights, [(r"^layers\.(\d)\.downsample\.", lambda found: f"layers.{int(found[1]) - 1}.downsample.")]
        )
    taken = renamed(weights, RULES)
    for name in [name for name in taken if ".attn.qkv." in name]:
        place, kind = name.split("attn.qkv.")
        third = len(taken[name]) // 3
        split_rows(taken, name, [(f"{place}attention.{part}_proj.{kind}", third) for part in "qkv"])
    return taken
