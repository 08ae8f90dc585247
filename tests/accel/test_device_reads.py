"""What the hooks ask of a device: how often they wait for it, how much they move, what they keep.

Counted on a CPU, where the same operations run: a mode sees every one of them, and every number that is read.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from tiny import TinyPipeline
from torch import Tensor

from outpace.accel import GatedTaylor, IntervalTaylor, ScheduledTaylor, accelerate, find_family
from outpace.accel.conductor import Conductor
from outpace.accel.estimate.traffic import Traffic
from outpace.accel.forecast.forecaster import Forecaster
from outpace.accel.part import Part
from outpace.accel.streams import named_result
from outpace.accel.timing import OUTSIDE, Timings
from outpace.accel.trace import Trace
from outpace.kernels.dispatch import Backend
from outpace.kernels.forecast import COMBINE, SUMS

GATED = GatedTaylor(threshold=1e6, gate="paper", warmup=3, cooldown=1)
PLANNED = GatedTaylor(threshold=1e6, gate="plan", warmup=3, cooldown=1)
INTERVAL = IntervalTaylor(interval=3, warmup=2)
SCHEDULED = ScheduledTaylor(speedup=2.5)
FLUX_1024_TOKENS = 4096 * 3072 * 2
"""Bytes of the picture's tokens in FLUX.1 at 1024 x 1024, bfloat16."""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Traffic]:
    """What every denoiser call asks of the device; waiting for all of it is an error."""
    seen: list[Traffic] = []
    inner = Conductor.call

    def counted(self: Conductor, *args: Any) -> Any:
        with Traffic() as traffic:
            output = inner(self, *args)
        seen.append(traffic)
        return output

    def waited() -> None:
        raise AssertionError("the device was synchronised")

    monkeypatch.setattr(Conductor, "call", counted)
    monkeypatch.setattr(torch.cuda, "synchronize", waited)
    return seen


def waits_of_the_model(pipe: TinyPipeline, call: dict[str, Any]) -> int:
    """How often a plain call of the transformer waits by itself."""
    seen: list[int] = []
    inner = pipe.transformer.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        with Traffic() as traffic:
            output = inner(*args, **kwargs)
        seen.append(len(traffic.waits))
        return output

    pipe.transformer.forward = counted
    try:
        pipe(steps=2, **call)
    finally:
        del pipe.transformer.forward
    return min(seen)


@pytest.mark.parametrize(
    "method", [GATED, PLANNED, INTERVAL, SCHEDULED], ids=["gated", "planned", "interval", "scheduled"]
)
@pytest.mark.parametrize(
    ("cls", "call", "anew"),
    [
        ("WanTransformer3DModel", {}, 0),
        ("WanTransformer3DModel", {"seeds": (0, 1, 2, 3)}, 0),
        ("WanTransformer3DModel", {"guidance": "separate", "context": True}, 0),
        ("FluxTransformer2DModel", {"seeds": (0, 1, 2, 3)}, 1),
        ("DiTTransformer2DModel", {"seeds": (0, 1), "guidance": "batched"}, 1),
    ],
    ids=["one", "four", "guided", "four, asked anew", "guided in one, asked anew"],
)
def test_a_skipped_call_waits_for_one_answer_and_a_computed_one_for_three(
    method: Any, cls: str, call: dict[str, Any], anew: int, calls: list[Traffic]
) -> None:
    """Args: anew: 1 where the tiny pipeline makes what it asks for at every step, so that its values are compared."""
    pipe = TinyPipeline(cls)
    own = waits_of_the_model(pipe, call)
    with accelerate(pipe, method) as run:
        pipe(steps=10, **call)
        skipped = [t for c, t in zip(run.trace.calls, calls, strict=True) if not any(c.computed)]
        computed = [t for c, t in zip(run.trace.calls, calls, strict=True) if any(c.computed)]
    assert len(skipped) >= 3 and len(computed) >= 3
    for traffic in skipped:
        assert len(traffic.waits) - own <= 1 + anew, traffic.waits
    for traffic in computed:
        assert len(traffic.waits) - own <= 3, traffic.waits


def one_pass(values: Any, *more: Any) -> int:
    """Bytes that the kernels of a GPU move: every value is read once, and a result of that size written once."""
    return sum(v.nbytes for v in values) + sum(m.nbytes for m in more if isinstance(m, Tensor))


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[bool, int, int]]]:
    """Of every call of the last block's hook: whether it forecast, bytes that it moved, bytes of its tokens.

    The weighted sums and errors are counted as the kernels that a GPU runs, which Triton's compiler is held to.
    """
    seen: list[tuple[bool, int, int]] = []
    fused = [0]

    def in_one_pass(operation: Any, writes: bool) -> None:
        plain: Callable[..., Tensor] = operation.backends[-1].run

        def run(values: list[Tensor], weights: list[float], *truth: Tensor) -> Tensor:
            counting.append(False)
            try:
                out = plain(values, weights, *truth)
            finally:
                counting.pop()
            fused[0] += one_pass(values, *truth, *([out] if writes else []))
            return out

        monkeypatch.setattr(operation, "backends", [Backend(name="one pass", run=run)])

    counting = [True]
    in_one_pass(COMBINE, True)
    in_one_pass(SUMS, False)
    inner = Forecaster._with_forecasts

    def counted(self: Forecaster, active: Any, stack: Any, result: Any) -> Any:
        fused[0] = 0
        with Traffic(counted=lambda: counting[-1]) as traffic:
            out = inner(self, active, stack, result)
        (tokens,) = [x for name, x in named_result(result, stack).items() if name == stack.hidden]
        seen.append((not any(active.computed), traffic.bytes + fused[0], tokens.nbytes))
        return out

    monkeypatch.setattr(Forecaster, "_with_forecasts", counted)
    yield seen


def test_a_skipped_call_of_flux_moves_little(hooks: list[tuple[bool, int, int]]) -> None:
    """In multiples of its tokens, so that it holds at every size; FLUX.1 at 1024 x 1024 moved 503 MB."""
    with accelerate(TinyPipeline("FluxTransformer2DModel"), GatedTaylor(threshold=1e6, gate="plan", order=2)) as run:
        run._target(steps=12)
    moved = {forecast: max(b / size for f, b, size in hooks if f == forecast) for forecast in (True, False)}
    assert moved[True] * FLUX_1024_TOKENS <= 150e6, moved
    assert moved[True] == pytest.approx(4.0), "three anchors are read and a result is written"


def test_times_of_a_gpu_are_read_when_the_run_is_over() -> None:
    """Between two events of its stream, and not before somebody asks."""
    clock = [0.0]

    read: list[float] = []

    class Event:
        def record(self) -> None:
            clock[0] += 10.0
            self.at = clock[0]

        def synchronize(self) -> None:
            read.append(self.at)

        def elapsed_time(self, end: Any) -> float:
            return end.at - self.at

    timings, trace = Timings(), Trace(family="toy", blocks=2, methods=[])
    trace.timings = timings
    begin, first, second, end = (Event() for _ in range(4))
    for event in (begin, first, second, end):
        event.record()
    record: Any = type("Record", (), {"seconds": 0.0})()
    timings.span("first block", first, second)
    timings.call(record, begin, end)
    assert not read and record.seconds == 0.0
    trace.settle()
    assert record.seconds == pytest.approx(0.03)
    assert dict(trace.parts) == {"first block": pytest.approx(0.01), OUTSIDE: pytest.approx(0.02)}
    trace.settle()
    assert record.seconds == pytest.approx(0.03) and len(read) == 2
    timings.span("first block", None, second)  # inside the capture of a graph nothing is marked
    timings.call(record, None, end)
    trace.settle()
    assert record.seconds == 0.0


def kept_bytes(pipe: TinyPipeline, method: Any, **call: Any) -> tuple[int, list[str]]:
    """Most bytes of histories held at once, and which transformers held any at the end of each step."""
    most, holding = [0], []
    with accelerate(pipe, method) as run:
        (forecaster,) = [part for part in run._conductor.parts if isinstance(part, Forecaster)]

        def look(step: int, latents: Tensor) -> None:
            held: defaultdict[str, int] = defaultdict(int)
            for (name, _), branch in forecaster._branches.items():
                for anchor in (a for rows in branch.streams.values() for h in rows for a in h.anchors):
                    held[name] += sum(t.nbytes for t in (anchor.first, anchor.last) if t is not None)
            most[0] = max(most[0], sum(held.values()))
            holding.append("+".join(sorted(name for name, size in held.items() if size)))

        pipe(callback=look, **call)
    return most[0], holding


def test_what_the_first_expert_remembers_is_freed_when_the_second_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    call = {"steps": 12, "guidance": "separate", "context": True}
    most, holding = kept_bytes(TinyPipeline("WanTransformer3DModel", boundary=500.0), INTERVAL, **call)
    assert {"transformer", "transformer_2"} == {name for name in holding if name}, "never both"
    monkeypatch.setattr(Forecaster, "leave", Part.leave)
    before, both = kept_bytes(TinyPipeline("WanTransformer3DModel", boundary=500.0), INTERVAL, **call)
    assert "transformer+transformer_2" in both
    assert most <= 0.6 * before


def as_a_graph_would(blocks: list[Any]) -> None:
    """Blocks of one class write their results where the one before wrote its own, as CUDA graphs of one code do."""
    places: dict[Any, Tensor] = {}

    def overwriting(block: Any) -> Callable[..., Any]:
        inner = block.forward

        def kept(place: int, out: Any) -> Any:
            if not isinstance(out, Tensor):
                return out
            key = (type(block), place, tuple(out.shape))
            if key not in places:
                places[key] = torch.empty_like(out)
            return places[key].copy_(out)

        @functools.wraps(inner)
        def forward(*args: Any, **kwargs: Any) -> Any:
            out = inner(*args, **kwargs)
            return tuple(kept(i, o) for i, o in enumerate(out)) if isinstance(out, tuple) else kept(0, out)

        return forward

    for block in blocks:
        block.forward = overwriting(block)


@pytest.mark.parametrize("cls", ["FluxTransformer2DModel", "WanTransformer3DModel"])
@pytest.mark.parametrize(
    "method",
    [
        GatedTaylor(threshold=0.5, gate="budget", warmup=3),
        IntervalTaylor(interval=3, warmup=2, correct=True),
        SCHEDULED,
    ],
    ids=["gated", "interval", "scheduled"],
)
def test_nothing_is_kept_that_a_graph_would_write_over(cls: str, method: Any) -> None:
    results = []
    for overwritten in (False, True):
        pipe = TinyPipeline(cls)
        if overwritten:
            as_a_graph_would([block for _, block in find_family(pipe.transformer).blocks(pipe.transformer)])
            outer, place = pipe.transformer.forward, []

            def forward(*args: Any, _outer: Any = outer, _place: list[Tensor] = place, **kwargs: Any) -> Any:
                out = _outer(*args, **kwargs)
                if not _place:
                    _place.append(torch.empty_like(out[0]))
                return (_place[0].copy_(out[0]),)

            pipe.transformer.forward = forward
        with accelerate(pipe, method) as run:
            made = pipe([0, 1], steps=10)
        results.append((made, [c.computed for c in run.trace.calls]))
    assert results[0][1] == results[1][1] and not all(all(computed) for computed in results[0][1])
    assert torch.equal(results[0][0], results[1][0])
