"""MOAT's weights, as DeepLab2's TensorFlow checkpoints have them: arrays like `moat/block_02_00/attention/q/weight`.

reader = tensorflow.train.load_checkpoint("moat0_1k_224_with_position_embedding/model.ckpt")
names = reader.get_variable_to_shape_map()
load_published(model, {name: torch.from_numpy(reader.get_tensor(name)) for name in names})
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import Tensor

from ...weights import Weights, layout
from ..moat import MapAttention, Moat, MobileConv

AVERAGED = "/ExponentialMovingAverage"
"""Behind the names of what a training averages besides; taken where the weights themselves are not there."""
KINDS = {
    "kernel": "weight",
    "depthwise_kernel": "weight",
    "weight": "weight",
    "gamma": "weight",
    "bias": "bias",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
BRANCH = {0: "pre_norm", 1: "expand_conv", 2: "expand_norm", 4: "depthwise_conv", 5: "depthwise_norm", 8: "shrink_conv"}
"""Layers of a block's convolutions, by their place here."""
EXCITE = {"squeeze": "se/reduce_conv2d", "excite": "se/expand_conv2d"}
ATTENTION = {"norm": "attention_norm", **{name: f"attention/{name[0]}" for name in ("query", "key", "value", "out")}}
TABLE = "attention/relative_position_embedding"


@layout(Moat)
def moat(weights: Weights, model: Moat) -> Weights:
    """Matrices have their inputs first there, tables of relative positions both axes the other way round."""
    theirs = {}
    for name in sorted(weights, key=lambda name: not name.endswith(AVERAGED)):  # the weights themselves come last
        short = re.sub(r"^(moat/)?(stem/)?", "", name.removesuffix(":0").removesuffix(AVERAGED))
        if short.split("/")[-1] in KINDS or short.endswith(TABLE):
            theirs[short] = weights[name]
    taken: Weights = {}
    for ours, name in _layers(model):
        for kind, part in KINDS.items():
            if (value := theirs.pop(f"{name}/{kind}", None)) is not None:
                taken[f"{ours}.{part}"] = _turned(value, kind, name)
        if ours.endswith(".out") and (table := theirs.pop(f"{name.split('/')[0]}/{TABLE}", None)) is not None:
            taken[f"{ours.removesuffix('.out')}.table"] = table.flip(1, 2)
    return {**taken, **theirs}  # what has no place here is answered as any other weights that do not fit


def _turned(value: Tensor, kind: str, name: str) -> Tensor:
    """As torch has it: (Y, X, in, out) of convolutions, (in, heads, width) or (heads, width, out) of attention."""
    if kind == "depthwise_kernel":
        return value.permute(2, 3, 0, 1)
    if kind == "kernel":
        return value.permute(3, 2, 0, 1)
    if kind == "weight":
        return (value.flatten(0, -2) if name.endswith("/o") else value.flatten(1)).mT
    return value.flatten()


def _layers(model: Moat) -> Iterator[tuple[str, str]]:
    """Every layer that has weights: by our name, and by theirs."""
    yield from (("layers.0", "conv_0"), ("layers.1", "norm_0"), ("layers.3", "conv_1"))
    stages = [(stage, block) for stage, depth in enumerate(model.config.depths) for block in range(depth)]
    names = (f"block_{stage:02d}_{block:02d}" for stage, block in stages)
    block = ""
    for place, layer in enumerate(model.layers):
        if isinstance(layer, MobileConv):
            block = next(names)
            yield f"layers.{place}.shortcut", f"{block}/shortcut_conv"
            yield from ((f"layers.{place}.branch.{i}", f"{block}/{name}") for i, name in BRANCH.items())
            yield from ((f"layers.{place}.branch.7.{part}", f"{block}/{name}") for part, name in EXCITE.items())
        elif isinstance(layer, MapAttention):
            yield from ((f"layers.{place}.{part}", f"{block}/{name}") for part, name in ATTENTION.items())
    yield from (("head.0", "final_layer_norm"), ("head.1", "logits_head"))
