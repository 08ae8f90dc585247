"""Where experts and routers begin, before anything is trained: units that answer together, chosen by how much they add.

Both go by what the dense layer does on real calls, so that a token's first choice of experts is already the choice of
those that it would miss most.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import ConfigError, InputError
from ...kernels.feed_forward import gated_unit
from ..families import find_family
from .active import set_active
from .block_mixture import find_groups
from .feed_forward import ExpertFeedForward, find_experts
from .pruned import block_effects

TOKENS = 1024
"""Most tokens that a layer is looked at with."""
ROUNDS = 12
"""Of the clustering."""
RIDGE = 1e-2
"""Of the regression that routers begin with, relative to the size of the inputs."""


def start_experts(transformer: nn.Module, calls: Iterable[Mapping[str, Any]], *, seed: int = 0) -> None:
    """Deal the routed units of a converted, untrained transformer to experts anew, and let its routers foresee them.

    Units that are large for the same tokens go to one expert, in equal numbers; a router begins as the linear
    prediction of how much each expert adds to a token. With every expert on, the model computes what it did before.

    Source: balanced clusters of hidden units as in MoEfication (Zhang et al. 2022, arXiv:2110.01786).

    Differs from the paper: Dense2MoE deals units in turn and starts routers at random.

    Args:
        transformer: with experts, as `convert` gives it.
        calls: keyword arguments of the transformer at several noise levels.

    Raises: ConfigError where there are no experts; InputError where there is no call.
    """
    layers = find_experts(transformer)
    if not layers:
        raise ConfigError(f"{type(transformer).__name__} has no experts to deal; convert it first")
    before: dict[str, int | Literal["all"]] = {path: layer.active for path, layer in layers.items()}
    generator = torch.Generator().manual_seed(seed)
    set_active(transformer, "all")
    try:
        inputs = _inputs(transformer, layers, calls, generator)
    finally:
        for path, layer in layers.items():
            layer.active = before[path]
    with torch.no_grad():
        for path, layer in layers.items():
            _start(layer, inputs[path], generator)


def start_groups(transformer: nn.Module, calls: Iterable[Mapping[str, Any]]) -> None:
    """Let the routers of groups of an untrained transformer foresee how far its output moves without each block.

    So a group begins by running the blocks that a sample would miss most, rather than any. Blocks that are not chosen
    add up to more than each by itself; training sees to that.

    Differs from the paper: Dense2MoE starts routers at random.

    Args:
        transformer: with groups of blocks, as `convert` gives it.
        calls: keyword arguments of the transformer at several noise levels.

    Raises: ConfigError where there are no groups; InputError where there is no call.
    """
    groups = find_groups(transformer)
    if not groups:
        raise ConfigError(f"{type(transformer).__name__} has no groups of blocks; convert it with some first")
    blocks = [block for _, block in find_family(transformer).blocks(transformer)]
    places = {id(block): place for place, block in enumerate(blocks)}
    held, active = list(calls), [group.active for group in groups]
    seen: list[list[Tensor]] = [[] for _ in groups]
    for group in groups:
        group.active = len(group.members)  # all blocks run: the dense model
    try:
        effects = block_effects(transformer, held, [places[id(b)] for group in groups for b in group.members])
        hooks = [
            group.router.register_forward_pre_hook(partial(_note_features, kept))
            for group, kept in zip(groups, seen, strict=True)
        ]
        try:
            with torch.no_grad():
                for call in held:
                    transformer(**call)
        finally:
            for hook in hooks:
                hook.remove()
    finally:
        for group, count in zip(groups, active, strict=True):
            group.active = count
    with torch.no_grad():
        for group, kept in zip(groups, seen, strict=True):
            wanted = effects[:, [places[id(block)] for block in group.members]].clamp_min(1e-12).log()
            weight = _regression(torch.cat(kept), (wanted - wanted.mean()) / wanted.std().clamp_min(1e-9))
            tokens, conditioning = weight.split([2 * group.router.width, group.router.embedding], dim=1)
            group.router.tokens.copy_(tokens)
            group.router.conditioning.copy_(conditioning)


def _note_features(kept: list[Tensor], router: Any, args: tuple[Any, ...]) -> None:
    kept.append(torch.cat(router.features(*args), -1))


def _note_tokens(kept: list[Tensor], _: Any, args: tuple[Any, ...]) -> None:
    kept.append(args[0].flatten(0, -2).float())


def _regression(x: Tensor, y: Tensor) -> Tensor:
    """The matrix (outputs, inputs) that best gives y (rows, outputs) from x (rows, inputs), kept small."""
    gram = x.T @ x
    ridge = RIDGE * gram.diagonal().mean() * torch.eye(len(gram), device=gram.device)
    return torch.linalg.solve(gram + ridge, x.T @ y).T


def _inputs(
    transformer: nn.Module,
    layers: dict[str, ExpertFeedForward],
    calls: Iterable[Mapping[str, Any]],
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Some tokens (T, D) that every layer sees, of all calls alike."""
    seen: dict[str, list[Tensor]] = {path: [] for path in layers}
    hooks = [layer.register_forward_pre_hook(partial(_note_tokens, seen[path])) for path, layer in layers.items()]
    try:
        with torch.no_grad():
            for call in calls:
                transformer(**call)
    finally:
        for hook in hooks:
            hook.remove()
    if not all(seen.values()):
        raise InputError("experts begin from what the dense layers do: give at least one call")
    tokens = {path: torch.cat(parts) for path, parts in seen.items()}
    return {path: x[torch.randperm(len(x), generator=generator)[:TOKENS]] for path, x in tokens.items()}


def _start(layer: ExpertFeedForward, x_TD: Tensor, generator: torch.Generator) -> None:
    experts = layer.experts
    up, down = cast(Tensor, experts.up), cast(Tensor, experts.down)
    count, _, each = up.shape
    hidden_TH = _hidden(experts, x_TD)
    added_TH = hidden_TH.abs() * down.float().norm(dim=2).flatten()
    order = torch.cat(_clusters(added_TH, count, generator))
    for name, dim in (("up", 2), ("gate", 2), ("up_bias", 1), ("gate_bias", 1), ("down", 1)):
        part = getattr(experts, name)
        if part is not None:
            units = part if dim == 1 else part.transpose(1, 2)
            dealt = units.flatten(0, 1)[order].unflatten(0, (count, each))
            part.copy_(dealt if dim == 1 else dealt.transpose(1, 2))
    parts_TEH = hidden_TH[:, order].unflatten(1, (count, each))
    norm_TE = torch.einsum("teh,eho->teo", parts_TEH, experts.down.float()).norm(dim=-1)  # pyright: ignore
    wanted_TE = (norm_TE - norm_TE.mean()) / norm_TE.std().clamp_min(1e-9)
    layer.router.weight.copy_(_regression(x_TD, wanted_TE))


def _hidden(experts: Any, x_TD: Tensor) -> Tensor:
    """Values of all routed units (T, experts x each), expert by expert."""

    def into(weight: Tensor, bias: Tensor | None) -> Tensor:
        y = x_TD @ weight.float().transpose(0, 1).flatten(1)
        return y if bias is None else y + bias.float().flatten()

    gate = None if experts.gate is None else into(experts.gate, experts.gate_bias)
    return gated_unit(into(experts.up, experts.up_bias), gate, experts.activation)


def _clusters(added_TH: Tensor, count: int, generator: torch.Generator) -> list[Tensor]:
    """The units in `count` clusters of one size, each of units that are large for the same tokens."""
    profile_HT = functional.normalize((added_TH - added_TH.mean(0)).T, dim=1)
    units = len(profile_HT)
    each = units // count
    centres = profile_HT[torch.randperm(units, generator=generator)[:count]]
    members: list[list[int]] = []
    for _ in range(ROUNDS):
        likeness = profile_HT @ centres.T
        members, dealt = [[] for _ in range(count)], [False] * units
        # The closest pairs first: a unit whose cluster is full goes to the next best that has room.
        for pair in likeness.flatten().argsort(descending=True).tolist():
            unit, cluster = divmod(pair, count)
            if not dealt[unit] and len(members[cluster]) < each:
                members[cluster].append(unit)
                dealt[unit] = True
        centres = functional.normalize(torch.stack([profile_HT[units].mean(0) for units in members]), dim=1)
    return [torch.tensor(units) for units in members]
