"""A pipeline with its transformers converted, written as an ordinary diffusers directory that `generate` runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, InputError
from ..files import whole_folder
from .quiet import quiet_loading

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..accel.experts import Conversion
    from .load import Loaded

BATCH = 4
"""Prompts a call, while importance is measured."""

ORDERS = ("taylor", "weights", "random")
"""How hidden units can be ordered by importance; the first is the paper's."""

STARTS = ("fitted", "random")
"""How units are dealt to experts and how routers begin; the second is the paper's."""


def convert_pipeline(
    loaded: Loaded,
    conversion: Conversion,
    *,
    order: str = "taylor",
    prompts: Sequence[Any] = (),
    arguments: Mapping[str, Any] | None = None,
    start: str = "fitted",
    spread: bool = True,
    drop: int = 0,
    drop_levels: int = 0,
    stand_ins: bool = False,
    seed: int = 0,
    progress: bool = False,
) -> None:
    """Put converted transformers in the place of the dense ones of a pipeline.

    Args:
        loaded: as `load_pipeline` gives it.
        conversion: what is done to every transformer of it.
        order: one of ORDERS. "taylor" runs the pipeline on `prompts` and asks how far its calls move with each unit.
        start: one of STARTS. "fitted" goes by what the pipeline does on `prompts`; without any, "random" is what is
            left: routers know nothing, and weights of noise levels begin as those of all.
        spread: of a layout by noise level, over layers and levels, where Taylor tells what experts are worth. False:
            as many experts in every layer and at every level.
        drop: so many blocks are dropped for good, those without which the output moves least on `prompts`.
        drop_levels: noise levels that leave out blocks of their own instead, as many as pay for `drop` on average; 0
            drops them for good.
        stand_ins: what stands in for blocks that levels leave out is fitted: for where nothing is trained afterwards.
        prompts: as the pipeline takes them; prompts that nothing is judged by later.
        arguments: of the pipeline's call, from `call_arguments`.
        seed: of the noise, the random order and the routers.
        progress: show on standard error what is being done.

    Raises: UnsupportedModelError, ConfigError: before anything is changed; InputError where Taylor has no prompts.
    """
    from ..accel.denoiser import denoisers_of
    from ..accel.experts import (
        Layout,
        choose_blocks,
        convert,
        level_borders,
        level_importance,
        spread_experts,
        start_blocks,
        start_experts,
        start_groups,
        start_levels,
    )
    from ..accel.experts.calls import record_calls
    from ..accel.families import find_family

    if start not in STARTS:
        raise ConfigError(f"experts and routers start {' or '.join(STARTS)}, not '{start}'")
    layers = conversion.experts is not None or conversion.width is not None
    if layers:
        check_order(order, prompts)
    if drop and not prompts:
        raise InputError("which blocks are missed least is asked on prompts; give some")
    from tqdm.auto import tqdm

    converted = {}
    found = denoisers_of(loaded.pipe)
    bar = tqdm(total=5 * len(found), desc="converting", disable=not progress)

    def stage(words: str) -> None:
        bar.update()
        bar.set_postfix_str(words)

    levels = conversion.expert_levels
    weights = conversion.experts is not None and Layout.parse(conversion.experts.layout).weights
    if levels > 1 and weights and not prompts:
        raise InputError(f"where {levels} noise levels part is read off calls; give prompts to run the pipeline on")
    if levels > 1 and not weights and order != "taylor":
        raise ConfigError(
            f"what matters at each of {levels} noise levels is measured: order by taylor, or choose a layout without N"
        )
    for name, transformer in found:
        calls: list[dict[str, Any]] = []
        stage("running the pipeline")
        if prompts:
            convert(transformer, conversion, seed=seed)  # what does not fit is refused before the pipeline is run
            calls = record_calls(transformer, lambda: _run(loaded, prompts, dict(arguments or {}), seed))
        stage("asking which blocks are missed least")
        if drop and drop_levels:
            borders = level_borders(calls, drop_levels, find_family(transformer).time) if drop_levels > 1 else ()
            chosen = choose_blocks(transformer, calls, drop, borders, stand_ins=stand_ins)
            conversion = replace(conversion, dropped=(), left_out=chosen, borders=borders, stand_ins=stand_ins)
        elif drop:
            conversion = replace(conversion, dropped=_least_missed(transformer, calls, drop))
        stage("importance of hidden units")
        if levels and order == "taylor":
            measured = level_importance(transformer, calls, levels, seed=seed)
            scores, conversion = measured.scores, replace(conversion, borders=measured.borders)
            if spread and conversion.experts is not None:
                counts = spread_experts(transformer, measured, conversion.experts.layout)
                conversion = replace(conversion, spread=counts)
        elif weights:
            borders = level_borders(calls, levels, find_family(transformer).time) if levels > 1 else ()
            conversion = replace(conversion, borders=borders)
            scores = _importance(transformer, order, calls, seed)
        else:
            scores = _importance(transformer, order, calls, seed) if layers else None
        stage("converting weights")
        converted[name] = convert(transformer, conversion, importance=scores, seed=seed)
        stage("dealing units to experts")
        if calls and start == "fitted":
            if conversion.experts is not None and not levels:
                start_experts(converted[name], calls, seed=seed)
            if weights:
                start_levels(converted[name], calls, seed=seed)
            if conversion.stand_ins:
                start_blocks(converted[name], calls)
            if conversion.groups:
                start_groups(converted[name], calls)
    bar.close()
    for name, transformer in converted.items():
        setattr(loaded.pipe, name, transformer)


def write_pipeline(loaded: Loaded, folder: Path, facts: Mapping[str, Any]) -> None:
    """Write the pipeline into `folder`, which is there as a whole or not at all.

    Args:
        facts: what is to be known about it later, in card.json beside the name of the pocket it came from.

    Raises: InputError where `folder` holds something already, or cannot be written.
    """
    from .pocket.store import forget_origin

    with whole_folder(folder) as part:
        with quiet_loading():
            loaded.pipe.save_pretrained(part)
        forget_origin(part)
        card = {"pocket": loaded.pocket.name, **facts} if loaded.pocket is not None else dict(facts)
        (part / "card.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")


def check_order(order: str, prompts: Sequence[Any]) -> None:
    """Raises: ConfigError for an order that there is not; InputError where Taylor has no prompts."""
    if order not in ORDERS:
        raise ConfigError(f"hidden units are ordered by {', '.join(ORDERS)}, not by '{order}'")
    if order == "taylor" and not prompts:
        raise InputError("importance by Taylor needs prompts to run the pipeline on; give some, or order by weights")


def _importance(transformer: nn.Module, order: str, calls: list[dict[str, Any]], seed: int) -> dict[str, Tensor]:
    import torch

    from ..accel.experts import output_change, random_importance, taylor_importance, weight_importance

    generator = torch.Generator().manual_seed(seed)
    makers: dict[str, Callable[[], dict[str, Tensor]]] = {
        "weights": lambda: weight_importance(transformer),
        "random": lambda: random_importance(transformer, seed),
        "taylor": lambda: taylor_importance(
            transformer, calls, lambda model, call: output_change(model, call, generator)
        ),
    }
    return makers[order]()


def _least_missed(transformer: nn.Module, calls: list[dict[str, Any]], drop: int) -> tuple[int, ...]:
    from ..accel.experts import block_effects
    from ..accel.families import find_family

    inner = range(1, len(find_family(transformer).blocks(transformer)) - 1)
    if drop > len(inner):
        raise ConfigError(f"{drop} blocks cannot be dropped: there are {len(inner)} between the first and the last")
    missed = block_effects(transformer, calls, inner).mean(0).tolist()
    return tuple(sorted(sorted(inner, key=lambda place: missed[place])[:drop]))


def _run(loaded: Loaded, prompts: Sequence[Any], arguments: dict[str, Any], seed: int) -> None:
    from .load import run_pipeline

    for first in range(0, len(prompts), BATCH):
        some = prompts[first : first + BATCH]
        run_pipeline(loaded, some, [seed + first + i for i in range(len(some))], arguments)
