"""Where everything that changes one pipeline comes together: its clock, its transformers, and who is asked at a call.

A forecaster decides whether blocks run at this step; a schedule of bricks which of them then do; an attention engine
what their attention leaves out. Each may be absent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from .clock import Clock, Moment
from .denoiser import Denoiser, Interception, Proceed, Rows, Site
from .families import Stack
from .inputs import latents_of, timestep_of
from .trace import Call, Trace

if TYPE_CHECKING:
    from .attention import AttentionEngine
    from .bricks.engine import BrickEngine
    from .forecaster import Forecaster
    from .profile import Expectation


@dataclass(slots=True)
class Current:
    """The denoiser call that is under way."""

    denoiser: Denoiser
    moment: Moment
    named: dict[str, Any]
    """Its arguments by name."""
    sigma: float | None
    """Noise level in 0..1, None where no scheduler tells."""
    rows: list[int] | None = None
    """Rows of the batch that the block under way is given, None for all."""
    tokens: int = 0
    """Tokens in the block under way that become the picture, where attention is left out; in some models the text's
    are among them."""

    @property
    def batch(self) -> int:
        """Rows of the batch."""
        latents = latents_of(self.named)
        return len(latents) if latents is not None else 1

    def run_rows(self, rows: Rows, proceed: Proceed, named: dict[str, Any], stack: Stack) -> Any:
        """Run a block for some rows of the batch."""
        self.rows = rows.rows
        try:
            return rows.run(proceed, named, stack)
        finally:
            self.rows = None

    def identity(self) -> dict[str, Any]:
        """What says in a trace which call this is."""
        moment = self.moment
        return {
            "run": moment.run,
            "step": moment.step,
            "branch": moment.branch,
            "denoiser": self.denoiser.name,
            "timestep": moment.timestep,
            "sigma": self.sigma,
        }


class Conductor:
    """The driver of the denoisers of one pipeline."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.clock = Clock(self.release, self.around_step)
        self.forecaster: Forecaster | None = None
        self.bricks: BrickEngine | None = None
        self.attention: AttentionEngine | None = None
        self.expectation: Expectation | None = None
        self.current: Current | None = None

    def release(self) -> None:
        """Forget everything remembered of the run; the tensors are freed."""
        for part in (self.forecaster, self.bricks, self.attention):
            if part is not None:
                part.release()

    def call(self, denoiser: Denoiser, site: Interception, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """One call of the transformer."""
        if torch.is_grad_enabled():
            self.trace.warn("gradients are on, so everything is computed; call under torch.no_grad() to accelerate")
            return site.proceed(*args, **kwargs)
        if getattr(denoiser.transformer, "is_cache_enabled", False):
            self.trace.warn(f"{denoiser.name} has a diffusers cache enabled, so everything is left to that")
            return site.proceed(*args, **kwargs)
        denoiser.ensure()
        named = site.named(args, kwargs)
        context = denoiser.context.name if denoiser.context is not None else None
        moment = self.clock.tick(timestep_of(named), context)
        if self.clock.astray:
            self.trace.warn(
                "the pipeline's scheduler does not step with the denoiser's timesteps: noise levels are read off "
                "those, and nothing is corrected"
            )
        if self.expectation is not None:
            self.expectation.hold(moment, named, self.trace)
        current = self.current = Current(denoiser, moment, named, moment.u if self.clock.levels is not None else None)
        if self.forecaster is not None:
            self.forecaster.begin(current)
        begin = now(named)
        try:
            output = site.proceed(*args, **kwargs)
        except BaseException:
            if self.forecaster is not None:
                self.forecaster.abort()
            self.release()
            raise
        finally:
            self.current = None
        seconds = now(named) - begin
        call = self.forecaster.finish(seconds) if self.forecaster is not None else computed_call(current, seconds)
        if self.bricks is not None:
            self.bricks.finish(current, call)
        if self.attention is not None:
            sparse = self.attention.finish(current, call is not None and any(call.computed) and call.blocks > 0)
            if call is not None:
                call.sparse = sparse
        if call is not None:
            self.trace.calls.append(call)
        return output

    def block(
        self, denoiser: Denoiser, index: int, site: Interception, args: Sequence[Any], kwargs: dict[str, Any]
    ) -> Any:
        """One call of a block."""
        current = self.current
        if self.attention is not None and current is not None and current.denoiser is denoiser:
            hidden = site.named(args, kwargs).get(denoiser.stacks[index].hidden)
            current.tokens = hidden.shape[1] if isinstance(hidden, torch.Tensor) else 0
        reached: Site = site if self.bricks is None else self.bricks.site(denoiser, index, site)
        if self.forecaster is None:
            return reached.proceed(*args, **kwargs)
        return self.forecaster.block(denoiser, index, reached, args, kwargs)

    def around_step(self, step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """One step of the scheduler; the last of a run frees what was remembered."""
        clock = self.clock
        result = (
            step(*args, **kwargs) if self.forecaster is None else self.forecaster.around_step(step, *args, **kwargs)
        )
        if clock.levels is not None and clock.first + clock.step + 2 >= len(clock.levels):
            self.release()
        return result


def computed_call(current: Current, seconds: float) -> Call:
    """The record of a call in which every block ran."""
    samples = current.batch
    return Call(
        **current.identity(),
        computed=[True] * samples,
        reason=["no forecast"] * samples,
        error=[None] * samples,
        order=[None] * samples,
        blocks=float(samples * len(current.denoiser.blocks)),
        seconds=seconds,
    )


def now(named: dict[str, Any]) -> float:
    """Seconds on a clock, after the accelerator has finished what was asked of it."""
    if torch.cuda.is_available() and any(isinstance(v, torch.Tensor) and v.is_cuda for v in named.values()):
        torch.cuda.synchronize()
    return time.perf_counter()
