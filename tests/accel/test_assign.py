"""Samples of one batch with methods of their own: each as it would be alone, whoever is beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from closeness import assert_same_but_rounding
from tiny import TinyPipeline

from outpace.accel import AdaSpa, GatedTaylor, IntervalTaylor, Solver, accelerate
from outpace.accel.methods import Method
from outpace.errors import ConfigError, ConflictError

STEPS = 16
DIALS: list[Method] = [
    GatedTaylor(threshold=0),
    GatedTaylor(threshold=0.3),
    GatedTaylor(threshold=0.3, gate="budget", coordinate="sigma"),
    GatedTaylor.paper(0.1),
    IntervalTaylor(interval=3),
    GatedTaylor(threshold=3.0, order=1),
    GatedTaylor(threshold=0.3),
]
"""With and without a first block that is measured, in both coordinates, corrected and not."""


def made(
    pipe: TinyPipeline, methods: Sequence[Method], seeds: Sequence[int], first: Method = DIALS[1], **call: Any
) -> tuple[torch.Tensor, list[list[tuple[bool, str]]]]:
    """What comes of it, and what was decided of each sample at each call."""
    with accelerate(pipe, first) as run:
        run.assign(methods)
        result = pipe(seeds, steps=STEPS, **call)
        calls = run.trace.calls
    return result, [[(c.computed[s], c.reason[s]) for c in calls] for s in range(len(seeds))]


@pytest.mark.parametrize("guidance", [None, "separate", "batched"])
def test_each_sample_is_as_it_would_be_alone(guidance: str | None) -> None:
    pipe = TinyPipeline("FluxTransformer2DModel")
    seeds = list(range(len(DIALS)))
    together, decided = made(pipe, DIALS, seeds, guidance=guidance)
    assert len({tuple(one) for one in decided}) > 4, "a test of dials needs some that differ"
    for place, method in enumerate(DIALS):
        with accelerate(pipe, method) as run:
            alone = pipe(seeds[place : place + 1], steps=STEPS, guidance=guidance)
            assert decided[place] == [(c.computed[0], c.reason[0]) for c in run.trace.calls], method
        assert_same_but_rounding(together[place], alone[0])


def test_threshold_0_in_company_is_the_plain_pipeline() -> None:
    pipe = TinyPipeline("FluxTransformer2DModel")
    plain = pipe([5], steps=STEPS)
    together, decided = made(pipe, [DIALS[5], DIALS[0]], [4, 5])
    assert all(done for done, _ in decided[1]) and not all(done for done, _ in decided[0])
    assert_same_but_rounding(together[1], plain[0])


@pytest.mark.parametrize("guidance", [None, "batched"])
@pytest.mark.parametrize("dials", [[1, 1], [0, 5], [5, 0, 5, 0]])
def test_strangers_with_one_seed_are_not_taken_for_one_sample(dials: list[int], guidance: str | None) -> None:
    """The same latents twice in a batch look like guidance; how many samples there are is known here."""
    pipe = TinyPipeline("FluxTransformer2DModel")
    methods = [DIALS[dial] for dial in dials]
    together, decided = made(pipe, methods, [7] * len(dials), guidance=guidance)
    for place, method in enumerate(methods):
        alone, by_itself = made(pipe, [method], [7], guidance=guidance)
        assert decided[place] == by_itself[0]
        assert_same_but_rounding(together[place], alone[0])


def test_one_assignment_follows_another_and_the_last_run_is_forgotten() -> None:
    pipe = TinyPipeline("FluxTransformer2DModel")
    with accelerate(pipe, GatedTaylor()) as run:
        for methods, seeds in (([DIALS[1], DIALS[4]], [0, 1]), ([DIALS[3]], [0, 1]), ([DIALS[0]] * 3, [0, 1, 2])):
            run.assign(methods)
            run.trace.clear()
            pipe(seeds, steps=STEPS)
            told = run.trace.methods
            assert told == [method.to_dict() for method in dict.fromkeys(methods)]
            assert all(len(call.computed) == len(seeds) for call in run.trace.calls)
        assert all(all(call.computed) for call in run.trace.calls)


def test_other_numbers_of_samples_are_refused() -> None:
    pipe = TinyPipeline("FluxTransformer2DModel")
    with accelerate(pipe, GatedTaylor()) as run:
        run.assign([DIALS[1], DIALS[2]])
        with pytest.raises(ConflictError, match="2 samples were given a dial of their own"):
            pipe([0, 1, 2], steps=4)
        assert len(pipe([0, 1], steps=4)) == 2, "and what was refused leaves nothing behind"


@pytest.mark.parametrize(
    ("methods", "error", "words"),
    [
        ([], ConfigError, "this has none"),
        ([Solver()], ConflictError, "the solver of a pipeline is one for all"),
        ([AdaSpa(recall=0.9)], ConfigError, "at work are gated_taylor, solver"),
        ([GatedTaylor(), Solver()], ConfigError, "this has forecast, solver"),
    ],
)
def test_what_is_decided_for_whole_batches_is_not_assigned(methods: list[Method], error: type, words: str) -> None:
    pipe = TinyPipeline("FluxTransformer2DModel")
    with accelerate(pipe, GatedTaylor(), Solver()) as run, pytest.raises(error, match=words):
        run.assign(methods)
