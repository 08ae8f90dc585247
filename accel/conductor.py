"""Drives the parts that change one pipeline: at each run, denoiser call, block and solver step they are asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from weakref import WeakSet, ref

import torch

from ..errors import ConflictError
from .clock import Clock, Followed
from .conditioning import Conditioning
from .denoiser import Denoiser, Interception, Site
from .guider import GuiderReader
from .inlets import Inlets
from .inputs import timestep_of
from .moment import Moment
from .part import Current, Part, Shared, order_of
from .requests import OneRequest, Request, Requests
from .surroundings import cache_conflict, look_around
from .trace import Call, Trace

TURNS = 3
"""After so many runs of hardly any step it is said that timesteps go back and forth."""

MOST_BRANCHES = 8
"""Branches of guidance that are told apart by place: three in the guidances of diffusers."""


class Conductor:
    """The driver of the denoisers of one pipeline."""

    def __init__(self, trace: Trace) -> None:
        self.requests = Requests()
        self.shared = Shared(trace, Clock(self.begin_run, self.around_step, self.requests.turn))
        self.handle: Any = None
        """What `accelerate` returned, for whoever lost it."""
        self._target: Any = None
        self._denoisers: dict[str, Denoiser] = {}
        self._sites: dict[str, list[Site]] = {}
        self._inlets: dict[str, Inlets] = {}
        self._followed: WeakSet[Followed] = WeakSet()
        self._guider = GuiderReader(lambda: getattr(self._target, "guider", None))
        self.start()

    def start(self) -> None:
        """Know of no run."""
        self._conditioning, self._one = Conditioning(), OneRequest()
        self._taken: set[str] = set()
        """Branches that the step under way has called."""
        self._leading: str | None = None
        """The transformer that the step under way called first."""
        self._called = self._inside = False

    def suspend(self) -> dict[str, Any]:
        """Hand over what is known of the run under way: another request is served."""
        held = {
            name: getattr(self, name) for name in ("_conditioning", "_one", "_taken", "_leading", "_called", "_inside")
        }
        self.start()
        return held

    def resume(self, held: dict[str, Any]) -> None:
        """Take back what `suspend` handed over."""
        for name, value in held.items():
            setattr(self, name, value)

    @property
    def parts(self) -> list[Part]:
        return self.shared.parts

    def take(self, parts: Sequence[Part]) -> None:
        """Drive these parts, in the order of their places."""
        self.parts[:] = sorted(parts, key=lambda part: order_of(part.place))
        self.requests.keepers[:] = [self, self.shared.clock, *self.parts]

    def request(self, scheduler: Any = None) -> Request:
        """One more request in this thread, with the solver that it steps where that is not the pipeline's."""
        clock, named = self.shared.clock, Request(self.requests)
        if scheduler is not None and scheduler is not clock.scheduler:
            followed = next((f for f in self._followed if f.scheduler is scheduler), None) or clock.follow(scheduler)
            self._followed.add(followed)
            followed.caller = ref(named)
            with self.requests.turn(named):
                clock.followed = followed
        return named

    def attach(self, denoiser: Denoiser) -> None:
        """Let every part take hold of a transformer. Raises: what a part cannot do."""
        self._denoisers[denoiser.name] = denoiser
        if conflict := cache_conflict(denoiser.name, denoiser.transformer):
            raise ConflictError(conflict)
        for part in self.parts:
            part.attach(denoiser)
        sites: list[Site] = []
        for index, block in enumerate(denoiser.blocks):
            site: Site = block
            for part in reversed(self.parts):
                site = part.site(denoiser, index, site)
            sites.append(site)
        self._sites[denoiser.name] = sites
        self._inlets[denoiser.name] = Inlets(denoiser)  # after the parts, so that it is asked before them

    def detach(self) -> None:
        """Leave the pipeline, its clock and its transformers as they were found."""
        self.release()
        self.requests.forget()
        for followed in self._followed:
            followed.leave()
        self.shared.clock.detach()
        for inlets in self._inlets.values():
            inlets.remove()
        for part in self.parts:
            part.detach()
        self._inlets.clear()
        self._sites.clear()
        self._denoisers.clear()
        self._guider.remove()
        self.handle = self._target = None

    def follow(self, target: Any) -> None:
        """Follow the scheduler of a pipeline, where it has one."""
        self._target, scheduler = target, getattr(target, "scheduler", None)
        self._guider.look()
        if scheduler is not None and hasattr(scheduler, "set_timesteps") and hasattr(scheduler, "step"):
            self.shared.clock.attach(scheduler, lambda: getattr(target, "scheduler", None))
        else:
            self.shared.trace.warn(
                "no scheduler was given: noise levels are read off the timesteps, and nothing is corrected"
            )

    def begin_run(self) -> None:
        """A run begins: forget the one before, and see what happened to the pipeline since."""
        self.release()
        self._called = False
        self._guider.look()
        self.look_around()

    def look_around(self) -> None:
        """Notice what others did to the pipeline since it was accelerated."""
        for denoiser in self._denoisers.values():
            look_around(self._target, denoiser, self.shared.trace.warn)

    def reset(self) -> None:
        """Forget the run of whoever calls, as pipelines ask for when theirs ends; another's that is served goes on."""
        with self.requests.turn():
            self.release()

    def release(self) -> None:
        """Forget everything remembered of the run; the tensors are freed."""
        self._conditioning.clear()
        self._one.begin_step()
        self._taken.clear()
        self._leading = None
        for part in self.parts:
            part.release()

    def call(self, denoiser: Denoiser, site: Interception, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """One call of the transformer. Raises: ConflictError where it belongs to another request than the step."""
        inlets = self._inlets[denoiser.name]
        with self.requests.turn():
            self._called = self._inside = True
            try:
                return self._call(denoiser, site, args, kwargs)
            finally:
                self._inside = denoiser.idle = False
                inlets.end()

    def _call(self, denoiser: Denoiser, site: Interception, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        shared, trace = self.shared, self.shared.trace
        if torch.is_grad_enabled():
            trace.warn("gradients are on, so everything is computed; call under torch.no_grad() to accelerate")
            return site.proceed(*args, **kwargs)
        if getattr(denoiser.transformer, "is_cache_enabled", False) or denoiser.left_to:
            trace.warn(
                denoiser.left_to or f"{denoiser.name} has a diffusers cache enabled, so everything is left to that"
            )
            return site.proceed(*args, **kwargs)
        denoiser.ensure()
        named = site.named(args, kwargs)
        if denoiser.only_fills(named):
            return site.proceed(*args, **kwargs)
        context = denoiser.context.name if denoiser.context is not None else None
        context = context if context is not None else self._guider.name
        clock = shared.clock
        moment = clock.tick(clock.foreseen(timestep_of(named, denoiser.family)), context)
        if clock.astray:
            trace.warn(
                "the pipeline's scheduler does not step with the denoiser's timesteps: noise levels are read off "
                "those, and nothing is corrected"
            )
        if clock.turned_back >= TURNS:
            trace.warn(
                "timesteps turn back every other call, so that nothing can be forecast; where requests take turns on "
                "this transformer, enter one of its own around each: mine = handle.request(its_scheduler)"
            )
        if moment.leader:
            if self._leading not in (None, denoiser.name):
                for part in self.parts:
                    part.leave(self._leading)
            self._leading = denoiser.name
        current = shared.current = self._current(denoiser, moment, named, placed=context is None)
        begin = trace.timings.mark(named)
        try:
            for part in self.parts:
                part.begin(current)
            denoiser.idle = current.idle
            self._inlets[denoiser.name].begin(current.made)
            output = site.proceed(*args, **kwargs)
        except BaseException:
            trace.timings.drop()
            for part in self.parts:
                part.abort()
            self.release()
            raise
        finally:
            shared.current = None
        end = trace.timings.mark(named)
        call: Call | None = computed_call(current)
        for part in self.parts:
            call = part.finish(current, call)
        if call is None:
            trace.timings.drop()
            return output
        trace.add(call)
        trace.timings.call(call, begin, end)
        if isinstance(begin, float):
            trace.settle()
        return output

    def _current(self, denoiser: Denoiser, moment: Moment, named: dict[str, Any], *, placed: bool) -> Current:
        """The call that begins, with the branch that it belongs to by what it is asked for."""
        if moment.leader:
            self._taken.clear()
            self._one.begin_step()
            if moment.step == 0:
                denoiser.adapters.forget()
        self._check_request(denoiser, named, compare=placed or moment.branch in self._taken)
        others = [str(place) for place in range(MOST_BRANCHES) if str(place) not in self._taken] if placed else []
        family = denoiser.family
        branch, generation, changed = self._conditioning.look(
            denoiser.name, moment.branch, named, family, denoiser.adapters.state(), others
        )
        self._taken.add(branch)
        sigma = moment.u if self.shared.clock.levels is not None else None
        return Current(denoiser, replace(moment, branch=branch), named, sigma, generation, changed)

    def _check_request(self, denoiser: Denoiser, named: dict[str, Any], *, compare: bool) -> None:
        try:
            self._one.check(denoiser.name, named.get(denoiser.family.latents), compare=compare)
        except ConflictError:
            self.shared.clock.begin_run()  # what comes next goes on with neither of them
            raise

    def block(
        self, denoiser: Denoiser, index: int, site: Interception, args: Sequence[Any], kwargs: dict[str, Any]
    ) -> Any:
        """One call of a block."""
        if not self._inside:
            self.look_around()
        return self._sites[denoiser.name][index].proceed(*args, **kwargs)

    def around_step(self, step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """One step of the scheduler; the last of a run frees what was remembered."""
        clock = self.shared.clock
        for part in reversed(self.parts):
            if type(part).around_step is not Part.around_step:
                step = partial(part.around_step, step)
        result = step(*args, **kwargs)
        if clock.levels is not None and clock.first + clock.step + 2 >= len(clock.levels):
            if not self._called and self._denoisers:
                self.look_around()
                self.shared.trace.warn(
                    f"a run of {clock.step + 1} steps reached no block of the transformer: another one was called, or "
                    "this one around its call; accelerate the pipeline that runs"
                )
            self.release()
            self.shared.trace.settle()
        return result


def computed_call(current: Current) -> Call:
    """The record of a call in which every block ran."""
    samples = current.batch
    return Call(
        **current.identity(),
        computed=[True] * samples,
        reason=["no forecast"] * samples,
        error=[None] * samples,
        order=[None] * samples,
        blocks=float(samples * len(current.denoiser.blocks)),
    )
