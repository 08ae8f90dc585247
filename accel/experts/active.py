"""How many experts run, changed at any time: as many in every layer, or so many that a call costs a share."""

from __future__ import annotations

from typing import Literal

from torch import nn

from ...errors import ConfigError
from .by_noise import NoiseFeedForward, find_noise_experts
from .feed_forward import ExpertFeedForward, find_experts
from .scheduled import find_scheduled
from .spread import spread_by_worth


def layers_with_experts(transformer: nn.Module) -> dict[str, ExpertFeedForward | NoiseFeedForward]:
    """Every layer of which a part is active, whatever chooses it, by path."""
    return {**find_experts(transformer), **find_noise_experts(transformer)}


def set_active(transformer: nn.Module, active: int | float | Literal["all", "schedule"]) -> None:
    """Choose how many routed experts a token, or a step of a noise level, goes through from now on.

    Args:
        active: 0 runs the shared expert alone; more is closer to the dense model and slower; "all" gives every expert
            the gate 1: before training, the dense model. A fraction, 0..1, is the share of the feed-forward layers'
            multiplications that the mean call keeps; where experts were spread over layers and noise levels, those
            that are worth most for what they cost. Of blocks that noise levels leave out, "all" runs every one, and
            all else runs them by their schedule; "schedule" leaves experts as they are.

    Raises: ConfigError where the transformer has no experts, or not as many; for a share where nothing is known about
        what experts are worth, or where more runs always.
    """
    layers, scheduled = layers_with_experts(transformer), find_scheduled(transformer)
    if not layers and not scheduled:
        raise ConfigError(f"{type(transformer).__name__} has no experts; convert it first")
    if active == "schedule" and not scheduled:
        raise ConfigError(f"noise levels of this {type(transformer).__name__} leave no blocks out")
    if not layers and active not in ("all", "schedule"):
        raise ConfigError(f"blocks that noise levels leave out run as 'all' or by their 'schedule', not {active!r}")
    for _, block in scheduled:
        block.all = active == "all"
    if active == "schedule" or not layers:
        return
    if isinstance(active, float):
        _set_share(transformer, active)
        return
    fewest = min(layer.layout.experts for layer in layers.values())
    if active != "all" and not (isinstance(active, int) and 0 <= active <= fewest):
        raise ConfigError(f"active experts must be 0 to {fewest} or 'all', not {active!r}")
    for layer in layers.values():
        layer.active = active


def _set_share(transformer: nn.Module, share: float) -> None:
    layers = find_noise_experts(transformer)
    worth = {path: layer.worth for path, layer in layers.items() if layer.worth is not None}
    if not worth:
        raise ConfigError(
            f"what the experts of this {type(transformer).__name__} are worth was not measured: give their number, or "
            "convert it with experts spread over layers and noise levels (spread)"
        )
    counts = spread_by_worth(
        worth,
        {path: layer.cost for path, layer in layers.items()},
        {path: layer.order.shape[1] for path, layer in layers.items()},
        next(iter(layers.values())).layout,
        share,
    )
    for path, layer in layers.items():
        layer.active = counts[path]
