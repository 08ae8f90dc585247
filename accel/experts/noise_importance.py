"""What matters at which noise level, measured: borders between levels, and the importance of hidden units at each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import ConfigError, InputError
from ..families import find_family
from .importance import output_change, taylor_importance
from .noise_levels import timesteps_of
from .sites import find_sites


@dataclass(frozen=True, slots=True)
class LevelImportance:
    """Borders for `Conversion.borders`, and scores for `convert`."""

    borders: tuple[float, ...]
    """Timesteps between the levels, ascending."""
    scores: dict[str, Tensor]
    """Path of a layer -> importance of its hidden units at every level (levels, H)."""
    tokens: dict[str, float]
    """Path of a layer -> tokens that it sees of one sample."""


def level_importance(
    transformer: nn.Module, calls: Sequence[Mapping[str, Any]], levels: int, *, seed: int = 0
) -> LevelImportance:
    """How far the output of a dense transformer moves without a hidden unit, at each of `levels` noise levels.

    The levels hold equally many of the samples, so a solver that takes more steps at high noise has more levels there.
    A call of samples at several levels is asked once for each of them.

    Args:
        calls: keyword arguments of the transformer, of prompts that nothing is judged by later.
        levels: 1 is importance over all noise levels, as for width pruning.
        seed: of the directions, see `output_change`.

    Raises: ConfigError for more levels than there are timesteps; InputError where no call tells one; as
        `taylor_importance`.
    """
    time = find_family(transformer).time
    times, borders = _times(calls, time), level_borders(calls, levels, time)
    generator = torch.Generator().manual_seed(seed)
    scores: dict[str, list[Tensor]] = {}
    tokens = _tokens(transformer, calls[0])
    for level in range(levels):
        asked = []
        for call, told in zip(calls, times, strict=True):
            at = torch.bucketize(torch.tensor(told), torch.tensor(borders), right=True) == level
            if bool(at.any()):
                asked.append((call, None if bool(at.all()) else at))
        found = taylor_importance(transformer, asked, partial(_change, generator))
        for path, one in found.items():
            scores.setdefault(path, []).append(one)
    return LevelImportance(borders, {path: torch.stack(rows) for path, rows in scores.items()}, tokens)


def level_borders(calls: Sequence[Mapping[str, Any]], levels: int, time: str = "timestep") -> tuple[float, ...]:
    """Timesteps between `levels` noise levels that hold equally many of the samples of `calls`, ascending.

    Args:
        calls: a transformer's arguments by name.
        levels: how many; 1 has no border.
        time: the argument that tells the timestep, see `Family.time`.

    Raises: ConfigError for more levels than there are timesteps; InputError where a call tells none.
    """
    return _borders([one for told in _times(calls, time) for one in told], levels)


def _times(calls: Sequence[Mapping[str, Any]], time: str) -> list[list[float]]:
    times = [timesteps_of(call.get(time)) for call in calls]
    told = [some for some in times if some is not None]
    if len(told) < len(times):
        raise InputError("the calls tell no timestep; choose a layout without noise levels")
    return told


def _tokens(transformer: nn.Module, call: Mapping[str, Any]) -> dict[str, float]:
    """Tokens of one sample that each layer sees, counted in a call."""
    seen: dict[str, float] = {}
    hooks = []
    for site in find_sites(transformer):
        weights: list[Tensor] = []
        site.read(lambda weight, own=weights: own.append(weight) or weight)
        linear = next(
            part
            for part in site.module.modules()
            if isinstance(part, nn.Linear) and any(part.weight is weight for weight in weights)
        )

        def note(module: nn.Linear, args: tuple[Any, ...], path: str = site.path) -> None:
            seen[path] = seen.get(path, 0.0) + args[0].numel() / module.in_features

        hooks.append(linear.register_forward_pre_hook(note))
    try:
        with torch.no_grad():
            output = transformer(**{**call, "return_dict": False})[0]
    finally:
        for hook in hooks:
            hook.remove()
    return {path: tokens / len(output) for path, tokens in seen.items()}


def _change(generator: torch.Generator, model: nn.Module, asked: tuple[Mapping[str, Any], Tensor | None]) -> Tensor:
    return output_change(model, asked[0], generator, asked[1])


def _borders(times: list[float], levels: int) -> tuple[float, ...]:
    """Midways between timesteps that occur, so that every level has about equally many of `times`."""
    known = sorted(set(times))
    if levels > len(known):
        raise ConfigError(
            f"{len(known)} timesteps cannot be parted into {levels} noise levels; take more steps, or fewer levels (N)"
        )
    ordered, borders = sorted(times), []
    for level in range(1, levels):
        place = known.index(ordered[level * len(ordered) // levels])
        place = min(max(place, level), len(known) - levels + level)
        borders.append((known[place - 1] + known[place]) / 2)
    if len(set(borders)) < len(borders):  # crowded timesteps: levels of equally many of those that occur
        places = [level * len(known) // levels for level in range(1, levels)]
        borders = [(known[place - 1] + known[place]) / 2 for place in places]
    return tuple(borders)
