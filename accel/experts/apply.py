"""Does to a transformer, in place, what a conversion says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from ...errors import ConfigError
from .block_mixture import mix_blocks
from .by_noise import NoiseFeedForward, NoiseLevels
from .feed_forward import ExpertFeedForward
from .importance import level_orders_of, orders_of
from .integers import to_integers
from .layout import Layout
from .modulation import compress_modulation
from .pruned import CutFeedForward, drop_blocks
from .settings import Conversion, Experts
from .sites import find_sites


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
    if conversion.experts is not None and conversion.levels:
        _by_noise(transformer, conversion.experts, conversion.borders, importance)
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
    transformer: nn.Module, experts: Experts, borders: Sequence[float], importance: Mapping[str, Tensor] | None
) -> None:
    layout, noise = Layout.parse(experts.layout), NoiseLevels(borders)
    sites = find_sites(transformer)
    orders = level_orders_of(sites, importance, layout)
    for site in sites:
        layer = NoiseFeedForward(site.read(), orders[site.path], experts, noise)
        site.place(transformer, layer.train(transformer.training))
    transformer.register_forward_pre_hook(noise.note, with_kwargs=True)
