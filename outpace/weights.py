"""Weights as papers' own code has published them: names renamed by rules, wrappers taken off, a model filled whole.

The layouts are in `models/published` and `pipelines/published.py`, beside the models they are of.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .errors import ConfigError, UnknownNameError
from .registry import suggestion

Weights = dict[str, Tensor]
Rule = tuple[str, str | Callable[[re.Match[str]], str]]
"""A pattern and what stands for it, as `re.sub` takes them."""
Layout = Callable[[Weights, Any], Weights]
LAYOUTS: dict[type[nn.Module] | str, Layout] = {}
"""Of a model's class: its published weights and the model -> the same weights by our names."""
WRAPPERS = ("module.", "_orig_mod.")
"""What trainers put before every name."""
CONTAINERS = ("state_dict", "model", "params_ema", "params", "g_ema", "model_ema")
"""Under what files hold the weights beside other things."""


def layout(*kinds: type[nn.Module] | str) -> Callable[[Layout], Layout]:
    """A decorator: the function knows the published layout of models of these classes."""

    def decorate(rename: Layout) -> Layout:
        LAYOUTS.update(dict.fromkeys(kinds, rename))
        return rename

    return decorate


def load_published(model: nn.Module, weights: Mapping[str, Any]) -> nn.Module:
    """Take weights in the layout of the paper's own code, all of them or none, in place; the model.

    Args:
        model: made by `create`, of the size that the weights are of.
        weights: names and tensors, or what a file holds around them (under "state_dict", "model" and the like).

    Raises:
        UnknownNameError: no layout is known for such a model.
        ConfigError: weights of another model or size; the message has the first that do not fit.
    """
    rename = LAYOUTS.get(type(model)) or LAYOUTS.get(type(model).__name__)
    if rename is None:
        known = sorted(kind if isinstance(kind, str) else kind.__name__ for kind in LAYOUTS)
        raise UnknownNameError(
            f"no published layout is known for a {type(model).__name__}{suggestion(type(model).__name__, known)}"
        )
    fill(model, rename(plain(weights), model))
    return model


def plain(weights: Mapping[str, Any]) -> Weights:
    """Names and tensors without what is around them and before them."""
    for name in CONTAINERS:
        inner = weights.get(name)
        if isinstance(inner, Mapping):
            weights = inner
            break
    found = {name: value for name, value in weights.items() if isinstance(value, Tensor)}
    for wrapper in WRAPPERS:
        if found and all(name.startswith(wrapper) for name in found):
            found = {name.removeprefix(wrapper): value for name, value in found.items()}
    return found


def renamed(weights: Weights, rules: Sequence[Rule]) -> Weights:
    """Every name through all rules, (pattern, what stands for it), in order; a name that becomes "" is left out."""
    made: Weights = {}
    for name, value in weights.items():
        for pattern, ours in rules:
            name = re.sub(pattern, ours, name)
        if name:
            made[name] = value
    return made


def split_rows(weights: Weights, name: str, into: Sequence[tuple[str, int]]) -> None:
    """Rows of one matrix as several, in place: (ours, rows) in order. Nothing happens where it is not there.

    Raises: ConfigError: they are not as many as it has.
    """
    if name in weights:
        whole = weights.pop(name)
        if len(whole) != sum(rows for _, rows in into):
            raise ConfigError(f"{name} has {len(whole)} rows, not {sum(rows for _, rows in into)}")
        parts = whole.split([rows for _, rows in into])
        weights.update({ours: part for (ours, _), part in zip(into, parts, strict=True)})


def fill(model: nn.Module, taken: Weights) -> None:
    """Load all of a model's weights; a shape may differ by axes of one.

    Raises: ConfigError: names or shapes that do not fit.
    """
    own = model.state_dict()
    counters = {name for name in own if name.endswith("num_batches_tracked")}
    odd = sorted((own.keys() ^ taken.keys()) - counters)
    for name in own.keys() & taken.keys():
        ours, theirs = own[name].shape, taken[name].shape
        if [side for side in ours if side != 1] != [side for side in theirs if side != 1]:
            odd.append(f"{name} {tuple(theirs)} for {tuple(ours)}")
    if odd:
        raise ConfigError(f"these weights are of another model or size: {', '.join(odd[:3])} and {len(odd)} in all")
    with torch.no_grad():
        for name, value in taken.items():
            own[name].copy_(value.reshape(own[name].shape))
