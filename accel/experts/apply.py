"""Does to a transformer, in place, what a conversion says."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ...errors import ConfigError
from .block_mixture import mix_blocks
from .by_noise import NoiseFeedForward
from .feed_forward import ExpertFeedForward
from .importance import level_orders_of, orders_of
from .integers import to_integers
from .layout import Layout
from .modulation import compress_modulation
from .noise_levels import NoiseLevels
from .pruned import CutFeedForward, drop_blocks
from .scheduled import schedule_blocks
from .settings import Conversion, Experts
from .sites import find_sites
from .spread import worth_of


def apply_conversion(
    transformer: nn.Module, conversion: Conversion, importance: Mapping[str, Tensor] | None = None
) -> None:
    """Do what `conversion` says to `transformer`, in place, one layer at a time."""
    if importance is not None and conversion.experts is None and conversion.width is None:
        raise ConfigError("importance orders the hidden units of experts; give experts or a width too")
    if conversion.groups:
        mix_blocks(transformer, conversion)
    if conversion.modulation is not None:
        compress_modulation(transformer, conversion.modulation)
    noise = NoiseLevels(conversion.borders)
    if conversion.levels:
        transformer.register_forward_pre_hook(noise.note, with_kwargs=True)
    if conversion.left_out:
        schedule_blocks(transformer, conversion.left_out, noise, stand_ins=conversion.stand_ins)
    if conversion.expert_levels:
        _by_noise(transformer, conversion, noise, importance)
    elif conversion.experts is not None or conversion.width is not None:
        sites = find_sites(transformer)
        orders = orders_of(sites, importance)
        for site in sites:
            if conversion.experts is not None:
                layer = ExpertFeedForward(site.read(), orders[site.path], conversion.experts)
            else:
                layer = CutFeedForward(site.read(), orders[site.path], conversion.width or 1.0)
            site.place(transformer, layer.train(transformer.training))
    drop_blocks(transformer, conversion.dropped)  # late: the importance of the blocks' layers goes by their places
    if conversion.integers is not None:
        to_integers(transformer, conversion.integers)


def _by_noise(
    transformer: nn.Module, conversion: Conversion, noise: NoiseLevels, importance: Mapping[str, Tensor] | None
) -> None:
    experts = conversion.experts or Experts()
    layout, sites = Layout.parse(experts.layout), find_sites(transformer)
    spread = {layer.path: layer for layer in conversion.spread}
    if spread and set(spread) != {site.path for site in sites}:
        raise ConfigError(
            f"experts are spread over layers that {type(transformer).__name__} does not have, or not over all"
        )
    orders = level_orders_of(sites, importance, layout, spread=bool(spread))
    for site in sites:
        order, own = orders[site.path], spread.get(site.path)
        if own is None:
            layer = NoiseFeedForward(site.read(), order, experts, noise)
        else:
            # What a loaded model's experts are worth comes with its weights.
            scores = torch.zeros(1, order.shape[1]) if importance is None else importance[site.path].cpu()
            worth = worth_of(scores, order, layout)
            layer = NoiseFeedForward(site.read(), order, experts, noise, own.active, worth, own.tokens)
        site.place(transformer, layer.train(transformer.training))
