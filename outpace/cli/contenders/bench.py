"""Requests in, results out: one pipeline run plainly, under our methods, or under a peer, with its blocks counted."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from outpace.errors import MeasurementError
from outpace.evaluation import Request, Result
from outpace.evaluation.meter import BlockMeter

if TYPE_CHECKING:
    from outpace.accel import Method
    from outpace.accel.calibration.attention import CalibratedAttention
    from outpace.accel.calibration.bricks import Calibrated
    from outpace.pipelines.load import Loaded


@dataclass(kw_only=True, slots=True)
class Bench:
    """A loaded pipeline with the arguments of its calls, ready to answer requests in any guise."""

    loaded: Loaded
    arguments: dict[str, Any]
    """Arguments of the pipeline's call; "num_inference_steps" is replaced where a contender takes other steps."""

    yardstick: Request | None = None
    """What calibrations are made with, whichever batch comes first: a study that is continued, or shared between
    processes, would count otherwise. None: the first request that is answered."""

    converted: Sequence[Converted] = ()
    """Converted pipelines that take part beside it."""

    others: Sequence[Also] = ()
    """Pipelines with other weights that take part beside it."""

    bricks: dict[str, Calibrated] = field(init=False, default_factory=dict)
    """What was measured of its bricks, by the settings of the calibration."""

    attention: CalibratedAttention | None = field(init=False, default=None)
    """What was measured of its attention."""

    meter: BlockMeter = field(init=False)
    calibrated: bool = field(init=False, default=False)
    flops: float | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        from outpace.accel import find_family
        from outpace.accel.denoiser import denoisers_of

        found = [module for _, module in denoisers_of(self.loaded.pipe)]
        self.meter = BlockMeter([(m, [block for _, block in find_family(m).blocks(m)]) for m in found])

    @property
    def steps(self) -> int:
        return self.arguments["num_inference_steps"]

    @property
    def blocks(self) -> int:
        """Blocks of the first denoiser."""
        return len(self.meter.denoisers[0][1])

    def run(self, requests: list[Request], steps: int) -> list[np.ndarray]:
        """The media, and nothing else: what is timed."""
        from outpace.pipelines.load import run_pipeline

        arguments = {**self.arguments, "num_inference_steps": steps}
        return run_pipeline(self.loaded, [r.prompt for r in requests], [r.seed for r in requests], arguments)

    def rehearse(self, request: Request) -> None:
        """One sample at full steps that no study looks at: a calibration prompt, or the request's with other noise."""
        request = self.yardstick or request
        pocket = self.loaded.pocket
        prompt = pocket.prompts(1, "calibration")[0] if pocket else request.prompt
        self.run([Request(index=0, prompt=prompt, seed=request.seed + 1_000_003)], self.steps)

    def calibrate(self, request: Request) -> None:
        """Measure what a full block costs, once, on a plain run with all its steps."""
        if not self.calibrated:
            with self.meter.counting() as calls:
                self.run([self.yardstick or request], self.steps)
            self.meter.calibrate(calls, 1)
            self.calibrated = True

    def call_flops(self) -> float:
        """FLOPs of the denoiser a call, measured once on the steps of one sample, at most two."""
        from outpace.accel.estimate.recording import recording_calls

        if self.flops is None:
            if self.yardstick is None:
                raise MeasurementError("there is no request to measure a call with")
            steps = min(2, self.steps)
            denoisers = [denoiser for denoiser, _ in self.meter.denoisers]
            with self.meter.counting() as calls, recording_calls(denoisers) as recordings:
                self.run([self.yardstick], steps)
            self.flops = recordings[0].flops / len(calls)
        return self.flops

    def answer(self, requests: list[Request], steps: int) -> list[Result]:
        """Run the pipeline as it stands, and count the blocks from outside."""
        self.calibrate(requests[0])
        with decoder_inputs(self.loaded.pipe) as latents, self.meter.counting() as calls:
            media = self.run(requests, steps)
        blocks = self.meter.blocks(calls, len(requests))
        trace = {"family": "", "blocks": self.blocks, "calls": counted_calls(self.meter, calls, len(requests), steps)}
        return [
            Result(media=m, latents=row(latents, i, len(requests)), blocks=blocks, trace=trace)
            for i, m in enumerate(media)
        ]

    def under(self, methods: tuple[Method, ...], requests: list[Request], steps: int) -> list[Result]:
        """Run the pipeline under methods that swap the solver only, or decide; blocks then come from their trace."""
        from outpace.accel import accelerate

        self.calibrate(requests[0])
        with accelerate(self.loaded.pipe, *methods) as run:
            if all(method.place == "solver" for method in methods):
                return self.answer(requests, steps)
            with decoder_inputs(self.loaded.pipe) as latents:
                media = self.run(requests, steps)
            trace = run.trace.as_dict()
        return [
            Result(
                media=m, latents=row(latents, i, len(requests)), blocks=blocks_of(trace, i), trace=of_sample(trace, i)
            )
            for i, m in enumerate(media)
        ]

    def timed_under(self, methods: tuple[Method, ...], requests: list[Request], steps: int) -> None:
        """The same as `under`, without counting or keeping anything."""
        from outpace.accel import accelerate

        with accelerate(self.loaded.pipe, *methods):
            self.run(requests, steps)

    def within(
        self, enter: Callable[[], AbstractContextManager[Any]], requests: list[Request], *, timed: bool = False
    ) -> Any:
        """Run the pipeline inside a peer's context, which `enter` makes after full blocks have been measured."""
        if not timed:
            self.calibrate(requests[0])
        with enter():
            return self.run(requests, self.steps) if timed else self.answer(requests, self.steps)


@dataclass(frozen=True, kw_only=True, slots=True)
class Also:
    """A pipeline with other weights, a distilled one or one with an adapter, called its own way."""

    name: str
    """Short, fit for a file name."""
    bench: Bench
    settings: dict[str, Any]
    """Which weights it has, and how it is called."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Converted:
    """A converted pipeline, ready to answer the dense one's requests."""

    name: str
    """Short, fit for a file name."""
    bench: Bench
    share: float
    """FLOPs of a call, beside a dense call."""
    settings: dict[str, Any]
    """What was done to it, and which weights it has."""


@contextmanager
def decoder_inputs(pipe: Any) -> Iterator[list[np.ndarray]]:
    """While open, collects what is handed to the pipeline's decoder; stays empty where there is none."""
    kept: list[np.ndarray] = []
    decoder = getattr(pipe, "vae", None)
    if decoder is None or not hasattr(decoder, "decode"):
        yield kept
        return
    decode = decoder.decode

    def keep(latents: Any, *args: Any, **kwargs: Any) -> Any:
        kept.append(latents.detach().float().cpu().numpy())
        return decode(latents, *args, **kwargs)

    decoder.decode = keep
    try:
        yield kept
    finally:
        del decoder.decode


def row(latents: list[np.ndarray], sample: int, samples: int) -> np.ndarray | None:
    """The latents of one sample, or None where the decoder was handed something else than one row a sample."""
    if not latents:
        return None
    every = np.concatenate(latents)
    return every[sample] if len(every) == samples else None


def counted_calls(meter: BlockMeter, calls: Any, samples: int, steps: int) -> list[dict[str, Any]]:
    """Denoiser calls as a trace tells them, from the counter: the share of blocks that was computed."""
    branches = max(1, round(len(calls) / steps))
    return [
        {"step": number // branches, "branch": str(number % branches), "computed": min(1.0, share)}
        for number, share in enumerate(meter.shares(calls, samples))
    ]


def blocks_of(trace: dict[str, Any], sample: int) -> float:
    """Blocks computed for one sample of a traced batch; a forecast costs what its call spent beyond the computed."""
    total = 0.0
    for call in trace["calls"]:
        done = sum(call["computed"])
        skipped = call.get("skipped") or [0.0] * len(call["computed"])
        if call["computed"][sample]:
            total += trace["blocks"] - skipped[sample]
        elif call.get("partial"):
            total += call["partial"][sample]
        else:
            total += (call["blocks"] + sum(skipped) - done * trace["blocks"]) / (len(call["computed"]) - done)
    return total


def of_sample(trace: dict[str, Any], sample: int) -> dict[str, Any]:
    """The decisions of one sample. What attention left out is recorded for a batch, so ask for one sample at a time."""
    keys = ("computed", "reason", "error", "order")
    calls = [
        {k: call[k] for k in ("step", "branch", "sigma", "timestep")} | {k: call[k][sample] for k in keys}
        for call in trace["calls"]
    ]
    kept = {key: trace.get(key) for key in ("family", "blocks", "warnings", "attention")}
    return {**kept, "calls": calls}


def weights_digest(pipe: Any) -> str:
    """A digest of some values of every weight of the denoiser: tells one training from another, at no cost."""
    digest = hashlib.sha256()
    for name, weight in pipe.transformer.named_parameters():
        digest.update(name.encode())
        digest.update(weight.detach().flatten()[:: max(1, weight.numel() // 16)][:16].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
