"""PredFormer's weights, as its repository has them."""

from __future__ import annotations

import re

from ...errors import ConfigError
from ...weights import Weights, layout, renamed
from ..predformer import PredFormer, Stack

STACK = re.compile(r"^(blocks\.\d+\.)?(\w*transformer\w*)\.")
PARTS = (
    (r"\.layers\.(\d+)\.0\.norm\.", r".blocks.\1.norm1."),
    (r"\.layers\.(\d+)\.1\.norm\.", r".blocks.\1.norm2."),
    (r"\.layers\.(\d+)\.0\.fn\.to_qkv\.", r".blocks.\1.query_key_value."),
    (r"\.layers\.(\d+)\.0\.fn\.to_out\.0\.", r".blocks.\1.out."),
    (r"\.layers\.(\d+)\.1\.fn\.fc1_g\.", r".blocks.\1.gate."),
    (r"\.layers\.(\d+)\.1\.fn\.fc1_x\.", r".blocks.\1.up."),
    (r"\.layers\.(\d+)\.1\.fn\.fc2\.", r".blocks.\1.down."),
    (r"^to_patch_embedding\.1\.", "embed."),
    (r"^mlp_head\.", "head."),
    (r"^pos_embedding$", ""),
)


@layout(PredFormer)
def predformer(weights: Weights, model: PredFormer) -> Weights:
    """Stacks lie in a row here, in the order they run in; the head's rows are pixels with their channels together."""
    names: list[str] = list(dict.fromkeys(found[0] for name in weights if (found := STACK.match(name))))
    over = [stack.over for stack in model.stacks if isinstance(stack, Stack)]
    if len(names) != len(over):
        raise ConfigError(f"these weights have {len(names)} stacks of blocks, and this PredFormer {len(over)}")
    if model.config.layout == "fac-ts":  # held in another order than they run in
        names.sort(key=lambda name: "temporal" not in name)
    for name, kind in zip(names, over, strict=True):
        if (
            not name.rstrip(".")
            .split(".")[-1]
            .removesuffix("_first")
            .removesuffix("_second")
            .endswith({"S": "space_transformer", "T": "temporal_transformer", "A": "space_temporal_transformer"}[kind])
        ):
            raise ConfigError(f"{name} is no stack over what layout '{model.config.layout}' has at that place ({kind})")
    places = {name: place for place, name in enumerate(names)}
    taken = renamed(weights, [(STACK.pattern, lambda found: f"stacks.{places[found[0]]}."), *PARTS])
    channels, square = model.config.channels, model.config.patch**2
    for kind in ("weight", "bias"):
        if (value := taken.get(f"head.1.{kind}")) is not None and len(value) == channels * square:
            taken[f"head.1.{kind}"] = value.unflatten(0, (channels, square)).transpose(0, 1).flatten(0, 1)
    return taken
