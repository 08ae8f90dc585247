"""Which hidden units of a feed-forward layer matter most: what makes the shared expert worth having."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...errors import ConfigError, InputError
from .dense import Dense
from .layout import Layout
from .sites import Site, find_sites

Loss = Callable[[nn.Module, Any], Tensor]
"""loss(transformer, batch) -> one number that can be differentiated."""


def taylor_importance(transformer: nn.Module, batches: Iterable[Any], loss: Loss) -> dict[str, Tensor]:
    """How much `loss` would change, to first order, if a hidden unit were removed; for every unit of every layer.

    |sum of dL/dw * w| over the weights into a unit, plus the same over those out of it, averaged over the batches. Give
    batches of many timesteps: units matter at different noise levels. Gradients are reduced as they arrive and freed,
    so a large model needs room for those of one layer.

    Source: first-order Taylor importance (Molchanov et al. 2019, arXiv:1906.10771), as Dense2MoE uses it.

    Args:
        transformer: a dense diffusers transformer; its weights, their gradients and what requires one stay as they are.
        batches: what `loss` takes, one after the other.
        loss: `output_change` needs no data but the transformer's inputs; a training loss needs its targets.

    Returns: path of the layer -> scores of its hidden units, in float32 on the CPU.

    Raises: UnsupportedModelError for a transformer without such layers; InputError where there is no batch, or the loss
        is not finite or depends on no layer.
    """
    sites = find_sites(transformer)
    wanted = {site.path: _weights(site) for site in sites}
    sums = {site.path: torch.zeros(site.read().hidden) for site in sites}
    count = 0
    with ExitStack() as undo, torch.enable_grad():
        _train_only({id(weight) for weights in wanted.values() for weight in weights}, transformer, undo)
        for batch in batches:
            # A layer that the loss does not depend on, such as the text's in a last block, stays at 0.
            signed = {path: [torch.zeros_like(scores), torch.zeros_like(scores)] for path, scores in sums.items()}
            with ExitStack() as hooks:
                for site in sites:
                    for weight in wanted[site.path]:
                        note = _reducing(site, weight, signed[site.path])
                        hooks.callback(weight.register_post_accumulate_grad_hook(note).remove)
                value = loss(transformer, batch)
                if not torch.isfinite(value).all():
                    raise InputError("the loss is not finite, so nothing can be said about importance")
                value.backward()
            for path, (into, out_of) in signed.items():
                sums[path] += into.abs() + out_of.abs()
            count += 1
    if not count:
        raise InputError("importance needs at least one batch")
    if not any(bool(total.any()) for total in sums.values()):
        raise InputError("the loss depends on no feed-forward layer; does it call the transformer that it is given?")
    return {path: total / count for path, total in sums.items()}


def output_change(
    transformer: nn.Module,
    call: Mapping[str, Any],
    generator: torch.Generator | None = None,
    rows: Tensor | None = None,
) -> Tensor:
    """A loss for `taylor_importance` that asks how far the output moves, in a random direction drawn for each call.

    Distillation minimises the squared distance to the dense output, whose gradient at the dense model is zero; its
    curvature along a weight is the mean square of what this loss's first-order change is.

    Args:
        call: keyword arguments of the transformer.
        generator: for the direction.
        rows: True for the samples of the output that count; None counts all.
    """
    output = transformer(**{**call, "return_dict": False})[0]
    parts = output if isinstance(output, (list, tuple)) else [output]
    total = sum(part.numel() for part in parts)
    moved = parts[0].new_zeros((), dtype=torch.float32)
    for part in parts:
        sign = torch.randint(0, 2, part.shape, generator=generator).to(part.device, torch.float32) * 2 - 1
        if rows is not None:
            sign = sign * rows.to(sign).reshape(-1, *[1] * (sign.ndim - 1))
        moved = moved + (part.float() * sign).sum()
    return moved / total**0.5


def weight_importance(transformer: nn.Module) -> dict[str, Tensor]:
    """Scores from the weights alone: the product of the norms into and out of a unit. Needs no data."""

    def score(dense: Dense) -> Tensor:
        into = dense.up_HD.float().norm(dim=1)
        if dense.gate_HD is not None:
            into = into * dense.gate_HD.float().norm(dim=1)
        return (into * dense.down_OH.float().norm(dim=0)).detach().cpu()

    return {site.path: score(site.read()) for site in find_sites(transformer)}


def random_importance(transformer: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """Scores that say nothing: what every other order has to beat."""
    generator = torch.Generator().manual_seed(seed)
    return {site.path: torch.rand(site.read().hidden, generator=generator) for site in find_sites(transformer)}


def level_orders_of(
    sites: list[Site], importance: Mapping[str, Tensor] | None, layout: Layout, *, spread: bool = False
) -> dict[str, Tensor]:
    """For every site and noise level its hidden units (levels, H), the shared ones first, then the most important.

    Shared are the units that matter most over all levels; where levels differ by their weights, that order is for all.

    Args:
        importance: scores (levels, H), or (H) for all levels alike.
        spread: a level where the output moves further counts for more, for more units will run there. Else levels count
            alike.

    Raises: ConfigError as `orders_of`.
    """
    if importance is not None:
        importance = {path: scores.float() for path, scores in importance.items()}
        for site in sites:
            scores = importance.get(site.path)
            if scores is not None and scores.ndim == 2 and len(scores) != layout.levels:
                raise ConfigError(f"importance of {site.path} is of {len(scores)} noise levels, {layout} has others")
    mean = _mean_square if spread else _alike_mean
    means = None if importance is None else {path: mean(scores) for path, scores in importance.items()}
    orders = {}
    for path, order in orders_of(sites, means).items():
        shared, _ = layout.widths(len(order))
        if importance is None or layout.weights:
            orders[path] = order.expand(layout.levels, -1).clone()
            continue
        scores = _alike(importance[path]).expand(layout.levels, -1).clone().cpu()
        scores[:, order[:shared]] = torch.inf
        orders[path] = scores.argsort(descending=True, stable=True, dim=1)
    return orders


def _mean_square(scores: Tensor) -> Tensor:
    return scores.reshape(-1, scores.shape[-1]).square().mean(0)


def _alike_mean(scores: Tensor) -> Tensor:
    return _alike(scores).mean(0)


def _alike(scores: Tensor) -> Tensor:
    """Scores (levels, H) that sum to 1 at each level: some levels move the output further than others."""
    rows = scores.reshape(-1, scores.shape[-1])
    return rows / rows.sum(1, keepdim=True).clamp_min(1e-30)


def orders_of(sites: list[Site], importance: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """The hidden units of every site, most important first; as they are where nothing is known.

    Raises: ConfigError where a site has no scores, or not one a unit.
    """
    orders = {}
    for site in sites:
        hidden = site.read().hidden
        if importance is None:
            orders[site.path] = torch.arange(hidden, device="cpu")  # a model on the meta device is built there whole
            continue
        scores = importance.get(site.path)
        if scores is None or scores.shape != (hidden,):
            has = "none" if scores is None else f"scores of shape {tuple(scores.shape)}"
            raise ConfigError(f"importance of {site.path} needs {hidden} scores, one a hidden unit; it has {has}")
        orders[site.path] = scores.argsort(descending=True, stable=True).cpu()
    return orders


def _weights(site: Site) -> list[nn.Parameter]:
    seen: dict[int, nn.Parameter] = {}

    def note(weight: Tensor) -> Tensor:
        if not isinstance(weight, nn.Parameter) or not weight.is_floating_point():
            raise InputError(f"the weights of {site.path} are quantised; importance needs them in floating point")
        return seen.setdefault(id(weight), weight)

    site.read(note)
    return list(seen.values())


def _train_only(ids: set[int], transformer: nn.Module, undo: ExitStack) -> None:
    # Nothing else gets a gradient, so only the activations on the way to these weights are kept.
    for weight in transformer.parameters():
        before, gradient = weight.requires_grad, weight.grad
        undo.callback(setattr, weight, "grad", gradient)
        undo.callback(weight.requires_grad_, before)
        weight.grad = None
        weight.requires_grad_(id(weight) in ids)


def _reducing(site: Site, weight: nn.Parameter, signed: list[Tensor]) -> Callable[[Tensor], None]:
    """A hook that adds weight x gradient, summed over each hidden unit, to `signed`: into the unit, and out of it."""

    def reduce(_: Tensor) -> None:
        product = weight.detach().float() * cast(Tensor, weight.grad).float()
        nothing = product.new_zeros(())
        part = site.read(lambda other: product if other is weight else nothing.expand(other.shape))
        rows = [m.sum(1) for m in (part.up_HD, part.gate_HD) if m is not None]
        rows += [bias for bias in (part.up_bias_H, part.gate_bias_H) if bias is not None]
        signed[0] += torch.stack(rows).sum(0).cpu()
        signed[1] += part.down_OH.sum(0).cpu()
        weight.grad = None

    return reduce
