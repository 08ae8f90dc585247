"""ViG's weights, as its repository has them: the plain models and the hierarchical ones."""

from __future__ import annotations

import re
from itertools import accumulate
from re import Match

from ...errors import ConfigError
from ...weights import Rule, Weights, layout, renamed, split_rows
from ..vig import Vig

MIXER = (
    (r"\.in_proj\.0\.", ".local."),
    (r"\.gk_proj\.", ".decay."),
    (r"\.o_proj\.", ".out."),
    (r"\.g_norm\.", ".norm."),
    (r"\.l_norm\.", ".local_norm."),
    (r"\.g_proj\.", ".gate."),
)
STEM = (0, 1, 3, 4)
"""Places of the stem's layers that have weights."""


@layout(Vig)
def vig(weights: Weights, model: Vig) -> Weights:
    """Queries, keys and values, and both sides of the gated network, are one matrix there.

    Raises: ConfigError: a model with what the published ones do not have.
    """
    taken = renamed(weights, _hierarchical(model) if model.config.hierarchical else _plain())
    stem = list(dict.fromkeys(found[1] for name in taken if (found := re.match(r"^patch_embed\.(\d+)\.", name))))
    if len(stem) != len(STEM):
        raise ConfigError(f"the stem of a ViG has {len(STEM)} layers with weights, not {len(stem)}")
    places = dict(zip(stem, STEM, strict=True))
    taken = renamed(taken, [(r"^patch_embed\.(\d+)\.", lambda found: f"stem.{places[found[1]]}.")])
    for name in [name for name in taken if name.endswith(".qkv_proj.weight")]:
        place, width = name.removesuffix("qkv_proj.weight"), len(taken[name]) // 2
        rows = (("query", width // 2), ("key", width // 2), ("value", width))
        split_rows(taken, name, [(f"{place}{ours}.weight", count) for ours, count in rows])
    for name in [name for name in taken if name.endswith(".gate_up.weight")]:
        place, half = name.removesuffix("gate_up.weight"), len(taken[name]) // 2
        split_rows(taken, name, [(f"{place}gate.weight", half), (f"{place}up.weight", half)])
    if "positions" in taken and model.positions is not None:
        side = model.positions.shape[2:]
        if taken["positions"].shape[1] != side.numel():
            raise ConfigError(
                f"these weights have positions for {taken['positions'].shape[1]} tokens, not {side.numel()}; create "
                f"the model with picture={16 * round(taken['positions'].shape[1] ** 0.5)}"
            )
        taken["positions"] = taken["positions"].mT.unflatten(-1, side)
    return taken


def _plain() -> list[Rule]:
    return [
        (r"^patch_embed\.proj\.", "patch_embed."),
        (r"^pos_embed$", "positions"),
        (r"^blocks\.(\d+)\.attn_norm\.", r"layers.\1.norm1."),
        (r"^blocks\.(\d+)\.mlp_norm\.", r"layers.\1.norm2."),
        (r"^blocks\.(\d+)\.attn\.", r"layers.\1.mixer."),
        (r"^blocks\.(\d+)\.mlp\.gate_proj\.", r"layers.\1.gate_up."),
        (r"^blocks\.(\d+)\.mlp\.down_proj\.", r"layers.\1.down."),
        *MIXER,
    ]


def _hierarchical(model: Vig) -> list[Rule]:
    starts = [0, *accumulate(depth + 2 for depth in model.config.depths)]

    def block(found: Match[str]) -> str:
        return f"layers.{starts[int(found[1])] + int(found[2])}."

    def down(found: Match[str]) -> str:
        return f"layers.{starts[int(found[1]) + 1] - (2 if found[2] == '1' else 1)}."

    return [
        (r"^layers\.(\d)\.blocks\.(\d+)\.", block),
        (r"^layers\.(\d)\.downsample\.([13])\.", down),
        (r"^(layers\.\d+)\.norm\.", r"\1.norm1."),
        (r"\.op\.", ".mixer."),
        (r"\.mlp\.fc1\.", ".gate_up."),
        (r"\.mlp\.fc2\.", ".down."),
        (r"^classifier\.", ""),
        *MIXER,
    ]
