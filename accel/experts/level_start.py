"""Where the weights of noise levels begin, before anything is trained: at the least squares fit of the dense layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import ConfigError
from ...kernels.feed_forward import gated_unit
from ...kernels.precision import widened
from .active import set_active
from .by_noise import NoiseFeedForward, find_noise_experts
from .regression import Regression

TOKENS = 4096
"""Most tokens of a noise level that a layer is fitted to."""

Seen = dict[int, list[Tensor]]
"""Level -> tokens (T, D)."""


@torch.no_grad()
def start_levels(transformer: nn.Module, calls: Iterable[Mapping[str, Any]], *, seed: int = 0) -> None:
    """Let the units that a noise level runs make up for those that it leaves out, before anything is trained.

    What left-out units add is in good part a linear function of the others, and another one at each level: the change
    of a level's output matrix and bias begins at the least squares fit of what the dense layer gives. With every expert
    on the model is the dense one still.

    Source: refitting the weights behind pruned units as in ThiNet (Luo et al. 2017, arXiv:1707.06342).

    Differs from the paper: for each noise level, with a bias and a ridge.

    Args:
        transformer: of a layout with weights by noise level (4W), untrained, as `convert` gives it.
        calls: keyword arguments of the transformer at several noise levels; a level that none is at stays as it is.
        seed: of the tokens that are taken where there are more than TOKENS.

    Raises: ConfigError where noise levels have no weights of their own.
    """
    layers = {path: layer for path, layer in find_noise_experts(transformer).items() if layer.changes}
    if not layers:
        raise ConfigError(f"{type(transformer).__name__} has no weights by noise level to fit; convert it to 4W or so")
    before: dict[str, int | Literal["all"] | tuple[int, ...]] = {path: layer.active for path, layer in layers.items()}
    seen: dict[str, Seen] = {path: {} for path in layers}
    hooks = [layer.register_forward_pre_hook(partial(_note, seen[path])) for path, layer in layers.items()]
    set_active(transformer, "all")
    try:
        for call in calls:
            transformer(**call)
    finally:
        for hook in hooks:
            hook.remove()
        for path, layer in layers.items():
            layer.active = before[path]
    generator = torch.Generator().manual_seed(seed)
    for path, layer in layers.items():
        for level, parts in seen[path].items():
            x_TD = torch.cat(parts)
            _fit(layer, level, x_TD[torch.randperm(len(x_TD), generator=generator)[:TOKENS]])


def _note(seen: Seen, layer: Any, args: tuple[Any, ...]) -> None:
    x, levels = args[0], layer.noise.levels or ()
    each, left = divmod(len(x), max(len(levels), 1))
    if len(levels) > 1 and (left or x.ndim < 3):
        return  # samples of several levels in one row
    for place, level in enumerate(levels):
        rows = x if len(levels) == 1 else x[place * each : (place + 1) * each]
        seen.setdefault(level, []).append(rows.detach().flatten(0, -2))


def _fit(layer: NoiseFeedForward, level: int, x_TD: Tensor) -> None:
    change: Any = layer.changes[level]
    units = layer.units(level)
    kept, gone = layer.order[level].split([units, layer.order.shape[1] - units])
    x = x_TD.float()

    def into(linear: nn.Linear) -> Tensor:
        return functional.linear(x, linear.weight.float(), None if linear.bias is None else linear.bias.float())

    hidden_TH = gated_unit(into(layer.up), None if layer.gate is None else into(layer.gate), layer.activation)
    fit = Regression(units, len(layer.down.weight))
    fit.add(hidden_TH[:, kept], widened(hidden_TH[:, gone]) @ widened(layer.down.weight)[:, gone].T)
    fit.solve(change.down)
