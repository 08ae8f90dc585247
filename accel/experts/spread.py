"""How many experts each layer runs at each noise level: as many in all as a budget allows, where they are worth most.

Layers differ more in what their units are worth than units of a layer do, and noise levels differ, too: a number of
experts that is the same everywhere leaves out much in some places to keep next to nothing in others.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ...errors import ConfigError
from .importance import level_orders_of
from .layout import Layout
from .noise_importance import LevelImportance
from .settings import LayerExperts
from .sites import find_sites


def spread_experts(
    transformer: nn.Module, measured: LevelImportance, layout: str, *, share: float | None = None
) -> tuple[LayerExperts, ...]:
    """For `Conversion.spread`: experts of every layer of a dense transformer and of every noise level.

    Those that move the output most for what they cost are taken first, over all layers and levels, until the mean call
    costs `share`. All levels count alike: they hold equally many of the calls.

    Source: one ranking over all layers as in global Taylor pruning (Molchanov et al. 2019, arXiv:1906.10771).

    Differs from the paper: by what a unit costs where layers see numbers of tokens of their own, and by noise level.

    Args:
        measured: of as many levels as `layout` has.
        share: of the feed-forward multiplications, 0..1; None: what the layout says.

    Raises: ConfigError for a layout without noise levels, a share that is less than one expert a layer, or an
        importance of other layers or levels.
    """
    found, sites = Layout.parse(layout), find_sites(transformer)
    if not found.levels:
        raise ConfigError(f"tokens choose the experts of {layout}, each as many; name noise levels, as 0S16E6A4W does")
    orders = level_orders_of(sites, measured.scores, found, spread=True)
    worth, costs = {}, {}
    for site in sites:
        dense = site.read()
        worth[site.path] = worth_of(measured.scores[site.path], orders[site.path], found)
        costs[site.path] = dense.unit_cost(measured.tokens[site.path])
    shares = found.fraction if share is None else share
    counts = spread_by_worth(worth, costs, {path: order.shape[1] for path, order in orders.items()}, found, shares)
    return tuple(
        LayerExperts(path=path, active=active, tokens=measured.tokens[path]) for path, active in counts.items()
    )


def worth_of(scores_LH: Tensor, order_LH: Tensor, layout: Layout) -> Tensor:
    """What every routed expert is worth at every level (L, E): the square of how far the output moves without it.

    Where an expert is worth more than one before it, whatever the order went by, it counts as much as that one: it
    cannot be had without.
    """
    shared, _ = layout.widths(order_LH.shape[1])
    moved = scores_LH.float().expand(len(order_LH), -1).square().gather(1, order_LH.to(scores_LH.device))
    return moved[:, shared:].unflatten(1, (layout.experts, -1)).sum(-1).cummin(1).values


def spread_by_worth(
    worth: Mapping[str, Tensor], costs: Mapping[str, float], hidden: Mapping[str, int], layout: Layout, share: float
) -> dict[str, tuple[int, ...]]:
    """Experts of every layer and level, by path; see `spread_experts`.

    Args:
        worth: of every layer's experts (L, E), falling along E.
        costs: of one hidden unit of every layer.
        hidden: units of every layer.

    Raises: ConfigError for a share that is less than what always runs: the shared units, or one expert a layer.
    """
    first = 0 if layout.shared else 1
    total = layout.levels * sum(costs[path] * hidden[path] for path in worth)
    places, ratios, prices, spent = [], [], [], 0.0
    for path, worth_LE in worth.items():
        shared, each = layout.widths(hidden[path])
        price = costs[path] * each
        spent += layout.levels * (costs[path] * shared + first * price)
        for level, row in enumerate(worth_LE.tolist()):
            places += [(path, level)] * (len(row) - first)
            ratios += [value / max(price, 1e-30) for value in row[first:]]
            prices += [price] * (len(row) - first)
    if not spent / total <= share <= 1.0:
        raise ConfigError(f"a share of {share:g} cannot run: {spent / total:.3g} of the layers always do, and 1 is all")
    counts = {path: [first] * layout.levels for path in worth}
    for place in torch.tensor(ratios).argsort(descending=True, stable=True).tolist():
        if spent + prices[place] > share * total * (1 + 1e-9):
            break
        path, level = places[place]
        counts[path][level] += 1
        spent += prices[place]
    return {path: tuple(active) for path, active in counts.items()}
