"""What holds exactly for ECO-M2F: against transformers' own Mask2Former, picture by picture, exit by exit."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from functools import cache
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..companion import check
from ..eco_m2f import ECO_M2F, EcoM2fConfig, ExitData, ExitEncoder, add_exits, build_eco, encoder_of, exit_loss

SMALL: EcoM2fConfig = ECO_M2F.toy
GIGA_BETWEEN_EXITS = 31.47
"""Multiplications that the paper's exits are apart on pictures of 1024 x 2048."""


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@cache
def small() -> tuple[Any, Any]:
    """(transformers' own model, the same with exits), in eval."""
    torch.manual_seed(0)
    with_exits: Any = build_eco(SMALL).eval()
    plain, layers = copy.deepcopy(with_exits), cast("Iterable[Any]", encoder_of(with_exits).layers)
    with torch.no_grad():
        for layer in layers:  # as drawn, they sample at their own place and would do little
            layer.self_attn.sampling_offsets.weight.normal_(std=0.5)
            layer.self_attn.attention_weights.weight.normal_(std=0.5)
    plain.load_state_dict(with_exits.state_dict())
    plain.model.pixel_level_module.decoder.encoder = _own_encoder(plain)
    return plain, with_exits


def _own_encoder(model: Any) -> nn.Module:
    """transformers' encoder with a model's layers."""
    from transformers.models.mask2former.modeling_mask2former import Mask2FormerPixelDecoderEncoderOnly

    own = Mask2FormerPixelDecoderEncoderOnly(model.config)
    own.layers = encoder_of(model).layers
    return own


def difference(one: Any, other: Any) -> float:
    masks = (one.masks_queries_logits - other.masks_queries_logits).abs().max()
    return float(masks.maximum((one.class_queries_logits - other.class_queries_logits).abs().max()))


@check("eco_m2f", "at the last exit, masks and classes are those of transformers' Mask2Former without exits")
@torch.no_grad()
def last_exit() -> float:
    plain, ours = small()
    encoder_of(ours).exit = encoder_of(ours).last
    x = normal(2, 3, 64, 96)
    return difference(ours(pixel_values=x), plain(pixel_values=x))


@check("eco_m2f", "at every earlier exit, they are those of transformers' Mask2Former with as many layers")
@torch.no_grad()
def earlier_exits() -> float:
    plain, ours = small()
    encoder, x, worst = encoder_of(ours), normal(2, 3, 64, 64), 0.0
    own = plain.model.pixel_level_module.decoder.encoder
    layers = own.layers
    for exit in range(encoder.first, encoder.last):
        encoder.exit, own.layers = exit, layers[:exit]
        worst = max(worst, difference(ours(pixel_values=x), plain(pixel_values=x)))
    own.layers = layers
    return worst


@check("eco_m2f", "pictures of one batch that the gate sends to different exits come out as each alone", at_most=1e-5)
@torch.no_grad()
def together() -> float:
    _, ours = small()
    encoder, x = encoder_of(ours), normal(4, 3, 64, 64)
    encoder.exit = None
    kept = copy.deepcopy(encoder.gate.state_dict())
    ours(pixel_values=x)
    spread = encoder.seen_BW - encoder.seen_BW.mean(0)
    encoder.gate.weight.copy_(spread[:3] / spread[:3].norm(dim=1, keepdim=True) ** 2)
    whole = ours(pixel_values=x)
    exits, worst = encoder.taken_B.clone(), 0.0
    for place in range(4):
        alone = ours(pixel_values=x[place : place + 1])
        worst = max(worst, float((alone.masks_queries_logits[0] - whole.masks_queries_logits[place]).abs().max()))
        worst += float(encoder.taken_B[0] != exits[place])
    encoder.gate.load_state_dict(kept)
    return worst + float(len(exits.unique()) < 2)


@check("eco_m2f", "the gate of the paper's size has 1,285 parameters, the only ones that exits add")
def gate() -> float:
    with torch.device("meta"):
        count = sum(part.numel() for part in nn.Linear(256, 5).parameters())
    _, ours = small()
    added = sum(part.numel() for part in encoder_of(ours).parameters()) - sum(
        part.numel() for part in encoder_of(ours).layers.parameters()
    )
    return abs(count - 1285) + abs(added - 3 * (SMALL.width + 1))


@check("eco_m2f", "multiplications grow by the same number with every exit")
@torch.no_grad()
def linear_cost() -> float:
    _, ours = small()
    encoder, x, counts = encoder_of(ours), normal(1, 3, 64, 64), []
    for exit in encoder.exits:
        encoder.exit = exit
        with FlopCounterMode(display=False) as counter:
            ours(pixel_values=x)
        counts.append(counter.get_total_flops() // 2)
    steps = {after - before for before, after in pairwise(counts)}
    return float(len(steps) != 1 or min(steps) <= 0)


@check("eco_m2f", "a layer costs what the paper's exits are apart on Cityscapes, as a share of it", at_most=0.005)
@torch.no_grad()
def printed_cost() -> float:
    from transformers import Mask2FormerConfig
    from transformers.models.mask2former.modeling_mask2former import Mask2FormerPixelDecoderEncoderLayer

    grids = [(32, 64), (64, 128), (128, 256)]
    tokens = sum(rows * columns for rows, columns in grids)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        x, places = torch.empty(1, tokens, 256), torch.empty(1, tokens, 3, 2)
        Mask2FormerPixelDecoderEncoderLayer(Mask2FormerConfig()).eval()(
            x, None, position_embeddings=x, reference_points=places, spatial_shapes_list=grids
        )
    return abs(counter.get_total_flops() / 2e9 / GIGA_BETWEEN_EXITS - 1)


@check("eco_m2f", "a higher price of a layer never makes a picture leave later (pictures that do)")
def prices() -> float:
    data = ExitData(seen_PW=normal(200, 4), quality_PE=normal(200, 5).sigmoid())
    best = torch.stack([data.best(price) for price in (0.0, 0.003, 0.01, 0.05, 0.2, 1.0)])
    return float((best.diff(dim=0) > 0).sum()) + float((best[-1] > 0).sum())


@check(
    "eco_m2f", "layers behind an exit get no gradient, those before it do (1 if not), and its loss is worth its share"
)
def gradients() -> float:
    _, ours = small()
    model = copy.deepcopy(ours)
    encoder = encoder_of(model)
    inputs = {
        "pixel_values": normal(1, 3, 64, 64),
        "mask_labels": [torch.ones(1, 64, 64)],
        "class_labels": [torch.zeros(1, dtype=torch.long)],
    }
    torch.manual_seed(0)
    loss = exit_loss(model, 3, **inputs)
    loss.backward()
    reached = [any(part.grad is not None for part in layer.parameters()) for layer in encoder.layers]
    torch.manual_seed(0)
    with torch.no_grad():
        whole = model(**inputs).loss.sum()
    return float(reached != [True, True, True, False]) + float((loss - whole * 3 / 4).abs() > 1e-4 * loss.abs())


@check("eco_m2f", "a Mask2Former that was trained elsewhere keeps its weights: exits are added in place (1 if not)")
def added() -> float:
    plain, _ = small()
    model = copy.deepcopy(plain)
    layers = model.model.pixel_level_module.decoder.encoder.layers
    exits = encoder_of(add_exits(model, first_exit=1))
    return float(exits.layers is not layers or not isinstance(exits, ExitEncoder) or exits.gate.out_features != 4)
