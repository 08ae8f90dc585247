"""Converted pipelines as contenders: their folders beside the dense pipeline, alone and under a forecast cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from outpace.accel import GatedTaylor
from outpace.cli.contenders.bench import Bench, Converted, weights_digest
from outpace.cli.contenders.curve import ours, plain, thresholds
from outpace.errors import InputError

if TYPE_CHECKING:
    from outpace.accel import Method
    from outpace.evaluation import Contender, Request, Result
    from outpace.pipelines.load import Loaded


def contender(
    one: Converted, dense: Bench, name: str, label: str, kind: str, curve: str, *methods: Method, shown: bool = False
) -> Contender:
    """A converted pipeline under `methods`, its blocks counted in dense ones by their FLOPs.

    Without any method, its routers are watched.
    """
    if methods:
        made = ours(one.bench, name, label, kind, curve, one.bench.steps, *methods, shown=shown)
    else:
        made = replace(plain(one.bench), name=name, label=label, kind=kind, curve=curve, shown=shown)
    worth = one.share * dense.blocks / one.bench.blocks

    def generate(requests: list[Request]) -> list[Result]:
        if methods:
            results = made.generate(requests)
        else:
            with watched(one.bench) as routing:
                results = made.generate(requests)
            for result in results:
                result.trace = {**(result.trace or {}), "routing": routing or None}
        return [replace(result, blocks=result.blocks * worth) for result in results]

    return replace(made, generate=generate, settings={**made.settings, **one.settings})


def load_converted(dense: Bench, loaded: Mapping[str, Loaded]) -> list[Converted]:
    """The converted pipelines in `loaded` by name, to be called as `dense` is.

    Raises: InputError for one of another model.
    """
    from outpace.accel.experts import conversion_of, count

    found = []
    original = dense.loaded.pipe.transformer
    for name, one in loaded.items():
        transformer = one.pipe.transformer
        conversion = conversion_of(transformer)
        if conversion is None or not isinstance(transformer, type(original)):
            raise InputError(
                f"--also {name}: it was made from a {type(transformer).__mro__[2].__name__}, and "
                f"{dense.loaded.source.name} has a {type(original).__name__}"
            )
        sizes = {"height": "height", "width": "width", "num_frames": "frames"}
        size = {word: dense.arguments[name] for name, word in sizes.items() if name in dense.arguments}
        counted = count(original, conversion, **size)
        found.append(
            Converted(
                name=name,
                bench=Bench(loaded=one, arguments=dense.arguments, yardstick=dense.yardstick),
                share=counted.flops / counted.dense_flops,
                settings={"conversion": conversion.to_dict(), "weights": weights_digest(one.pipe)},
            )
        )
    return found


def converted_contenders(dense: Bench, converted: Sequence[Converted]) -> list[Contender]:
    """Each by itself, and under our gate at several thresholds."""
    made = []
    for one in converted:
        made.append(contender(one, dense, one.name, one.name, "converted", one.name, shown=True))
        made += [
            contender(
                one,
                dense,
                f"{one.name}+gated-{t:g}",
                f"gated {t:g} on {one.name}",
                "converted",
                f"gated on {one.name}",
                GatedTaylor(threshold=t),
            )
            for t in thresholds(dense.steps)
        ]
    return made


@contextmanager
def watched(bench: Bench) -> Iterator[dict[str, Any]]:
    """What the routers of a pipeline's transformer choose meanwhile, for its report; stays empty without routers."""
    from outpace.accel.experts import watch

    kept: dict[str, Any] = {}
    transformer = bench.loaded.pipe.transformer
    calls: list[dict[str, list[float]]] = []
    with watch(transformer) as routing:

        def note(*_: Any) -> None:
            # A layer of a block that did not run was not asked.
            calls.append({name: shares.pop().tolist() for name, shares in routing.shares.items() if shares})

        hook = transformer.register_forward_hook(note)
        try:
            yield kept
        finally:
            hook.remove()
    # The first calls may measure what a block costs; those of the pictures are the last, one or more a step.
    branches = max(1, len(calls) // bench.steps)
    last = calls[-branches * bench.steps :]
    if routing.shares:
        kept["layers"] = list(routing.shares)
        kept["choices"] = [
            [
                mean([call[name] for call in last[step * branches : (step + 1) * branches] if name in call])
                for step in range(bench.steps)
            ]
            for name in routing.shares
        ]


def mean(rows: Sequence[Sequence[float]]) -> list[float] | None:
    """Of each column; None where there is no row."""
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)] if rows else None
