"""Contenders that are calibrated on the pipeline when they are first asked, on prompts that no figure is read on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from outpace.evaluation import Contender, Request

if TYPE_CHECKING:
    from outpace.accel import Method
    from outpace.cli.contenders.bench import Bench


def calibration_requests(bench: Bench, count: int) -> list[Request]:
    """Requests that no study looks at: calibration prompts of a pocket, or the yardstick's with other noise."""
    pocket = bench.loaded.pocket
    if pocket is None:
        assert bench.yardstick is not None
        prompts = [bench.yardstick.prompt] * count
    else:
        prompts = pocket.prompts(count, "calibration")
    return [Request(index=i, prompt=prompt, seed=1_000_003 + i) for i, prompt in enumerate(prompts)]


def made_when_asked(
    bench: Bench, name: str, label: str, kind: str, curve: str, settings: dict[str, Any],
    methods: Callable[[], tuple[Method, ...]], *, batch: int = 64,
) -> Contender:  # fmt: skip
    """A contender whose methods are made when it is first asked."""
    known: list[tuple[Method, ...]] = []

    def found() -> tuple[Method, ...]:
        if not known:
            known.append(methods())
        return known[0]

    return Contender(
        name=name,
        label=label,
        kind=kind,
        curve=curve,
        steps=bench.steps,
        settings=settings,
        generate=lambda requests: bench.under(found(), requests, bench.steps),
        timed=lambda requests: bench.timed_under(found(), requests, bench.steps),
        batch=batch,
    )
