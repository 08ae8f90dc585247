"""Drives the parts that change one pipeline: at each run, denoiser call, block and solver step they are asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from .clock import Clock
from .denoiser import Denoiser, Interception, Site
from .inputs import timestep_of
from .part import Current, Part, Shared, order_of
from .timing import now
from .trace import Call, Trace


class Conductor:
    """The driver of the denoisers of one pipeline."""

    def __init__(self, trace: Trace) -> None:
        self.shared = Shared(trace, Clock(self.release, self.around_step))
        self._sites: dict[str, list[Site]] = {}

    @property
    def parts(self) -> list[Part]:
        return self.shared.parts

    def take(self, parts: Sequence[Part]) -> None:
        """Drive these parts, in the order of their places."""
        self.parts[:] = sorted(parts, key=lambda part: order_of(part.place))

    def attach(self, denoiser: Denoiser) -> None:
        """Let every part take hold of a transformer. Raises: what a part cannot do."""
        for part in self.parts:
            part.attach(denoiser)
        sites: list[Site] = []
        for index, block in enumerate(denoiser.blocks):
            site: Site = block
            for part in reversed(self.parts):
                site = part.site(denoiser, index, site)
            sites.append(site)
        self._sites[denoiser.name] = sites

    def detach(self) -> None:
        """Leave the pipeline, its clock and its transformers as they were found."""
        self.release()
        self.shared.clock.detach()
        for part in self.parts:
            part.detach()
        self._sites.clear()

    def release(self) -> None:
        """Forget everything remembered of the run; the tensors are freed."""
        for part in self.parts:
            part.release()

    def call(self, denoiser: Denoiser, site: Interception, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """One call of the transformer."""
        shared, trace = self.shared, self.shared.trace
        if torch.is_grad_enabled():
            trace.warn("gradients are on, so everything is computed; call under torch.no_grad() to accelerate")
            return site.proceed(*args, **kwargs)
        if getattr(denoiser.transformer, "is_cache_enabled", False):
            trace.warn(f"{denoiser.name} has a diffusers cache enabled, so everything is left to that")
            return site.proceed(*args, **kwargs)
        denoiser.ensure()
        named = site.named(args, kwargs)
        context = denoiser.context.name if denoiser.context is not None else None
        clock = shared.clock
        moment = clock.tick(timestep_of(named), context)
        if clock.astray:
            trace.warn(
                "the pipeline's scheduler does not step with the denoiser's timesteps: noise levels are read off "
                "those, and nothing is corrected"
            )
        current = shared.current = Current(denoiser, moment, named, moment.u if clock.levels is not None else None)
        for part in self.parts:
            part.begin(current)
        begin = now(named)
        try:
            output = site.proceed(*args, **kwargs)
        except BaseException:
            for part in self.parts:
                part.abort()
            self.release()
            raise
        finally:
            shared.current = None
        call: Call | None = computed_call(current, now(named) - begin)
        for part in self.parts:
            call = part.finish(current, call)
        if call is not None:
            trace.calls.append(call)
        return output

    def block(
        self, denoiser: Denoiser, index: int, site: Interception, args: Sequence[Any], kwargs: dict[str, Any]
    ) -> Any:
        """One call of a block."""
        return self._sites[denoiser.name][index].proceed(*args, **kwargs)

    def around_step(self, step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """One step of the scheduler; the last of a run frees what was remembered."""
        clock = self.shared.clock
        for part in reversed(self.parts):
            if type(part).around_step is not Part.around_step:
                step = partial(part.around_step, step)
        result = step(*args, **kwargs)
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
