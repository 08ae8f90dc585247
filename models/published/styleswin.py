"""StyleSwin's weights, as its repository has them: the generator and the critic."""

from __future__ import annotations

import torch

from ...weights import Weights, layout, renamed
from ..styleswin import Critic, StyleSwin

GENERATOR = (
    (r".*(?:attn_mask\d?|relative_position_index|sin_pos_embed\..*|kernel)$", ""),
    (r"^style\.(\d+)\.", lambda found: f"mapping.{int(found[1]) - 1}."),
    (r"^input\.input$", "start"),
    (
        r"^layers\.(\d+)\.blocks\.([01])\.",
        lambda found: f"blocks.{2 * int(found[1]) + int(found[2])}.",
    ),
    (r"^layers\.(\d+)\.upsample\.", r"upsamples.\1."),
    (r"\.reduction\.", ".reduce."),
    (r"\.alpha$", ".strength"),
    (r"\.proj\.", ".out."),
    (r"\.attn\.([01])\.relative_position_bias_table$", r".tables.\1"),
    (r"\.mlp\.fc1\.", ".up."),
    (r"\.mlp\.fc2\.", ".down."),
    (r"^to_rgbs\.(\d+)\.conv\.", r"colours.\1."),
)
CRITIC = (
    (r".*(?:kernel|\.(?:ll|lh|hl|hh))$", ""),
    (r"^from_rgbs\.(\d+)\.conv\.", r"looks.\1."),
    (r"^convs\.(\d+)\.conv1\.", r"blocks.\1.first."),
    (r"^convs\.(\d+)\.conv2\.", r"blocks.\1.second."),
    (r"^final_conv\.", "last."),
    (r"^final_linear\.0\.", "hidden."),
    (r"^final_linear\.1\.", "out."),
    # a convolution, what blurs before it and its bias are numbered layers of one there
    (r"\.\d+\.(weight|bias)$", r".\1"),
)


@layout(StyleSwin)
def styleswin(weights: Weights, model: StyleSwin) -> Weights:
    """Channels of the first grid are in front there, tables are flat, and offsets of colours lie apart."""
    weights = {name: value for name, value in weights.items() if ".norm1.norm." not in name}
    taken = renamed(weights, GENERATOR)
    if "start" in taken:
        taken["start"] = taken["start"][0].permute(1, 2, 0)
    for name in [name for name in taken if ".tables." in name]:
        side = round(len(taken[name]) ** 0.5)
        taken[name] = taken[name].T.unflatten(1, (side, side))
    offsets = [taken.pop(name) for name in sorted(
        (name for name in taken if name.startswith("to_rgbs.") and name.endswith(".bias")),
        key=lambda name: int(name.split(".")[1]),
    )]  # fmt: skip
    if offsets:
        taken["offsets"] = torch.stack([offset.flatten() for offset in offsets])
    return taken


@layout(Critic)
def critic(weights: Weights, model: Critic) -> Weights:
    """The first look has the number 0 there too; biases of convolutions are in the layers behind them."""
    return renamed(weights, CRITIC)
