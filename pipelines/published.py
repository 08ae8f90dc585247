"""Weights as the papers' own code has published them, put into diffusers' layers of ours, and the constants they want.

    model = VDTTransformer3DModel(..., norm_eps=1e-6, freq_shift=0.0, places_in_stream=True)
    load_published(model, torch.load("vdt_model.pt"))  # from outpace.models, as for any model

Their DiT tells times and labels once to all blocks, where diffusers' tells them in every block; queries, keys and
values are one matrix; tables of places are kept beside the weights, and have to be ours.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.embeddings import Timesteps, get_1d_sincos_pos_embed_from_grid
from torch import nn

from ..errors import ConfigError
from ..weights import Rule, Weights, layout, renamed, split_rows

BLOCK: tuple[Rule, ...] = (
    (r"\.adaLN_modulation\.1\.", ".norm1.linear."),
    (r"\.attn\.proj\.", ".attn1.to_out.0."),
    (r"\.mlp\.fc1\.", ".ff.net.0.proj."),
    (r"\.mlp\.fc2\.", ".ff.net.2."),
)
LAST: tuple[Rule, ...] = (
    (r"(^|\.)final_layer\.adaLN_modulation\.1\.", r"\1proj_out_1."),
    (r"(^|\.)final_layer\.linear\.", r"\1proj_out_2."),
)
CONDITION = {
    "t_embedder.mlp.0": "timestep_embedder.linear_1",
    "t_embedder.mlp.2": "timestep_embedder.linear_2",
    "y_embedder": "class_embedder",
}
"""What tells times and labels, by their names."""
SAME_PLACES = 1e-4
"""How far tables of sines may be apart: they are kept in float32."""


def shift_frequencies(model: nn.Module, shift: float) -> None:
    """Tell times by frequencies 10000^(-i / (half - shift)), in place: diffusers' DiT has 1, its authors' code 0."""
    for part in model.modules():
        if isinstance(part, Timesteps):
            part.downscale_freq_shift = shift


@layout("VDTTransformer3DModel")
def vdt(weights: Weights, model: Any) -> Weights:
    """Attention over time ends in two matrices there, which are one here: their product.

    Raises: ConfigError: other places than the model's, or a model that tells them elsewhere.
    """
    if not model.config.places_in_stream:
        raise ConfigError("VDT's authors tell places in time to the whole stream: create it with places_in_stream=True")
    taken = dict(weights)
    same_places(taken, "pos_embed", model.pos_embed.pos_embed)
    if (times := taken.get("time_embed")) is not None:
        frames = torch.arange(times.shape[1])
        same_places(
            taken, "time_embed", get_1d_sincos_pos_embed_from_grid(times.shape[2], frames, output_type="pt")[None]
        )
    for i in range(len(model.transformer_blocks)):
        for kind, out in multiplied(taken, f"blocks.{i}.temporal_attn.proj", f"blocks.{i}.temporal_fc").items():
            taken[f"blocks.{i}.temporal_attention.to_out.0.{kind}"] = out
    rules = ((r"\.temporal_attn\.", ".temporal_attention."), (r"\.temporal_norm1\.", ".temporal_norm."),
             (r"^x_embedder\.", "pos_embed."))  # fmt: skip
    return _dit(renamed(taken, rules), model)


@layout("DiT3DTransformerModel")
def dit3d(weights: Weights, model: Any) -> Weights:
    """Names alone. Raises: ConfigError: other places than the model's."""
    taken = dict(weights)
    same_places(taken, "pos_embed", model.positions)
    return _dit(renamed(taken, [(r"^x_embedder\.proj\.", "proj_in.")]), model)


@layout("LegoTransformer2DModel")
def lego(weights: Weights, model: Any) -> Weights:
    """Labels are a matrix on one-hot vectors there, and no label at all is its bias.

    Raises: ConfigError: other places than a brick's, or a model whose coordinates count across first.
    """
    if not model.config.down_first:
        raise ConfigError("LEGO's authors have coordinates down before those across: create it with down_first=True")
    around = [(r"^model\.(?=model\.|[ty]_embedder\.|map_augment\.)", ""), (r"^map_augment\..*", "")]
    taken = renamed(weights, around)
    matrix, bias = (taken.pop(f"y_embedder.embedding_table.{kind}", None) for kind in ("weight", "bias"))
    if matrix is not None and bias is not None:
        taken["y_embedder.embedding_table.weight"] = torch.cat([matrix.T + bias, bias[None]])
    elif matrix is None and bias is None:  # a model of no classes: its table has one row, of nothing
        taken["y_embedder.embedding_table.weight"] = taken["t_embedder.mlp.2.bias"].new_zeros(1, model.bricks[0].width)
    for i, brick in enumerate(model.bricks):
        same_places(taken, f"model.{i}.pos_embed", brick.position)
    taken = renamed(
        taken,
        [
            *LAST,
            (r"^model\.(\d+)\.blocks\.", r"bricks.\1.transformer_blocks."),
            (r"^model\.", "bricks."),
            (r"\.x_embedder\.proj\.", ".patches."),
            *BLOCK,
            *((rf"^{theirs}\.", f"condition.{ours}.") for theirs, ours in CONDITION.items()),
        ],
    )
    return _three_matrices(taken)


@layout("LadineMember")
def ladine_member(weights: Weights, model: Any) -> Weights:
    """One conditional model of the released code. It has a time more than are ever asked for, which is left out.

    Raises: ConfigError: a member that norms otherwise.
    """
    if not isinstance(model.first.norm, nn.BatchNorm1d):
        raise ConfigError("LaDiNE's released members norm over the batch: create the denoiser with norm='batch'")
    # theirs count layers of any kind, ours a flattening before them
    rules = [(r"^encoder_x\.(\d+)\.", lambda found: f"picture.{int(found[1]) + 1}."),
             (r"^norm\.", f"picture.{len(model.picture) - 1}."), (r"^lin4\.", "out.")]  # fmt: skip
    for i, ours in enumerate(("first", "second", "third"), 1):
        rules += [(rf"^lin{i}\.lin\.", f"{ours}.linear."), (rf"^lin{i}\.embed\.", f"{ours}.scale."),
                  (rf"^unetnorm{i}\.", f"{ours}.norm.")]  # fmt: skip
    taken = renamed(weights, rules)
    for name in [name for name in taken if name.endswith(".scale.weight")]:
        times = model.first.scale.num_embeddings
        taken[name] = taken[name][:times] if len(taken[name]) == times + 1 else taken[name]
    return taken


@layout("MappingNetwork")
def ladine_mapping(weights: Weights, model: Any) -> Weights:
    """One classifier of the released code, `linear1` to the last."""
    places = [i for i, part in enumerate(model) if isinstance(part, nn.Linear)]
    return renamed(weights, [(rf"^linear{i}\.", f"{place}.") for i, place in enumerate(places, 1)])


@layout("LadineEncoder")
def ladine_encoder(weights: Weights, model: Any) -> Weights:
    """timm's vision transformer, as the released code trains it."""
    rules = (
        (r"^patch_embed\.proj\.", "patches."),
        (r"^cls_token$", "class_token"),
        (r"^pos_embed$", "positions"),
        (r"\.attn\.qkv\.weight$", ".self_attn.in_proj_weight"),
        (r"\.attn\.qkv\.bias$", ".self_attn.in_proj_bias"),
        (r"\.attn\.proj\.", ".self_attn.out_proj."),
        (r"\.mlp\.fc(\d)\.", r".linear\1."),
    )
    return renamed(weights, rules)


def same_places(weights: Weights, name: str, ours: torch.Tensor) -> None:
    """Take a table of places out of published weights: it is not learned, and has to be the model's own.

    Raises: ConfigError: it is another one.
    """
    theirs = weights.pop(name, None)
    if theirs is None:
        return
    fits = theirs.squeeze(0).shape == ours.squeeze(0).shape
    if not fits or float((theirs.flatten() - ours.to(theirs).flatten()).abs().max()) > SAME_PLACES:
        raise ConfigError(
            f"{name} {tuple(theirs.shape)} is not the table of places {tuple(ours.shape)} that this model tells"
        )


def multiplied(weights: Weights, first: str, second: str) -> Weights:
    """Weight and bias of two linear layers as those of one, taken out of `weights`; nothing where they are missing."""
    names = [f"{layer}.{kind}" for layer in (first, second) for kind in ("weight", "bias")]
    if not all(name in weights for name in names):
        return {}
    w1, b1, w2, b2 = (weights.pop(name) for name in names)
    bias = b2.double() + w2.double() @ b1.double()
    return {"weight": (w2.double() @ w1.double()).to(w1), "bias": bias.to(b1)}


def _dit(weights: Weights, model: Any) -> Weights:
    """Of a DiT with one embedding of times and labels: the same by diffusers' names, with one in every block."""
    taken = renamed(weights, [*LAST, (r"^blocks\.", "transformer_blocks."), *BLOCK])
    for name in [name for name in taken if name.startswith(tuple(f"{part}." for part in CONDITION))]:
        part = next(part for part in CONDITION if name.startswith(f"{part}."))
        value, rest = taken.pop(name), name.removeprefix(part)
        for i in range(len(model.transformer_blocks)):
            taken[f"transformer_blocks.{i}.norm1.emb.{CONDITION[part]}{rest}"] = value
    return _three_matrices(taken)


def _three_matrices(weights: Weights) -> Weights:
    for name in [name for name in weights if ".qkv." in name]:
        place, kind = name.split("qkv.")
        place, third = place.replace(".attn.", ".attn1."), len(weights[name]) // 3
        split_rows(weights, name, [(f"{place}to_{part}.{kind}", third) for part in "qkv"])
    return weights
