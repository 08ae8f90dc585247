"""`accelerate`: change a pipeline so that it runs faster, and a handle that tells what happened and undoes it."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

from torch import nn

from ..errors import ConfigError, ConflictError, UnsupportedModelError
from .attention import AttentionEngine
from .bricks.engine import BrickEngine
from .conductor import Conductor
from .denoiser import Denoiser
from .families import FAMILIES, find_family
from .forecaster import Forecaster
from .methods import Method, check_combination
from .methods.adaspa import AdaSpa
from .methods.brick_skipping import BrickSkipping
from .methods.gated_taylor import GatedTaylor
from .methods.interval_taylor import IntervalTaylor
from .methods.solver import Solver
from .presets import preset_methods
from .profile import Expectation, Profile, fingerprint_of
from .trace import Trace


class Acceleration:
    """What `accelerate` returns: the change it made, what came of it, and the way back.

    Attributes:
        trace: every decision, as data.
        family: the family adapter in use.
        methods: the methods applied.
        profile: what they were taken from, where it was a profile.
    """

    def __init__(self, target: Any, methods: list[Method], profile: Profile | None = None) -> None:
        check_combination(methods)
        found = denoisers_of(target)
        self._target, self.methods, self.profile = target, methods, profile
        self.family = find_family(found[0][1])
        families = [find_family(module) for _, module in found]
        self.trace = Trace(
            family=self.family.name,
            blocks=len(self.family.blocks(found[0][1])),
            methods=[m.to_dict() for m in methods],
        )
        self._scheduler: Any = None
        self._swapped: Any = None
        self._denoisers: list[Denoiser] = []
        self._conductor = Conductor(self.trace)
        if profile is not None:
            self._compare_with(profile, found)
        for method in methods:
            if isinstance(method, Solver):
                self._swap_scheduler(method)
        inside = [method for method in methods if not isinstance(method, Solver)]
        try:
            if inside or profile is not None:
                self._take_hold(inside, found, families)
        except BaseException:
            self.restore()
            raise

    def _compare_with(self, profile: Profile, found: list[tuple[str, nn.Module]]) -> None:
        if not profile.certified:
            self.trace.warn("the profile is not certified: it kept its target on calibration prompts only")
        for difference in profile.fingerprint.differences(fingerprint_of(self._target, found)):
            self.trace.warn(f"the profile was tuned on another pipeline, nothing is promised of this one: {difference}")
        self._conductor.expectation = Expectation(steps=profile.steps, sample=profile.sample)

    def _swap_scheduler(self, method: Solver) -> None:
        current = getattr(self._target, "scheduler", None)
        if current is None:
            raise ConflictError(
                "Solver changes a pipeline's scheduler; give accelerate the pipeline, not the transformer"
            )
        self._scheduler, self._swapped = current, method.scheduler(current)
        self._target.scheduler = self._swapped

    def _take_hold(self, methods: list[Method], found: list[tuple[str, nn.Module]], families: list[Any]) -> None:
        conductor = self._conductor
        for method in methods:
            if isinstance(method, (GatedTaylor, IntervalTaylor)):
                conductor.forecaster = Forecaster(method.policy(), self.trace, conductor.clock, method.correct)
            elif isinstance(method, AdaSpa):
                conductor.attention = AttentionEngine(method, self.trace, conductor)
        asked = conductor.forecaster is not None and conductor.forecaster.policy.probes
        for method in methods:
            if isinstance(method, BrickSkipping):
                conductor.bricks = BrickEngine(method, self.trace, conductor, asked)
        for (name, module), family in zip(found, families, strict=True):
            self._denoisers.append(Denoiser(name, module, family, conductor))
            if conductor.bricks is not None:
                conductor.bricks.attach(self._denoisers[-1])
            if conductor.attention is not None:
                conductor.attention.attach(self._denoisers[-1])
        scheduler = getattr(self._target, "scheduler", None)
        if scheduler is not None and hasattr(scheduler, "set_timesteps") and hasattr(scheduler, "step"):
            conductor.clock.attach(scheduler, lambda: getattr(self._target, "scheduler", None))
        else:
            self.trace.warn("no scheduler was given: noise levels are read off the timesteps, and nothing is corrected")

    def reset(self) -> None:
        """Forget what is remembered of the run under way, as at the start of a new one."""
        self._conductor.release()

    def restore(self) -> None:
        """Leave the pipeline exactly as it was found. Calling it twice does nothing more."""
        self._conductor.release()
        self._conductor.clock.detach()
        if self._conductor.attention is not None:
            self._conductor.attention.detach()
        for denoiser in self._denoisers:
            denoiser.remove()
        self._denoisers.clear()
        if self._swapped is not None and self._target.scheduler is self._swapped:
            self._target.scheduler = self._scheduler
        self._swapped = None

    def summary(self) -> str:
        """What was computed and forecast, why, and what it brought: some lines for a person."""
        return self.trace.summary()

    def __enter__(self) -> Acceleration:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.restore()

    def __repr__(self) -> str:
        return f"<Acceleration of {self.family.name}: {', '.join(m.name for m in self.methods)}>"


def accelerate(
    target: Any, *methods: Method, preset: str | None = None, profile: Profile | str | Path | None = None
) -> Acceleration:
    """Make a diffusers pipeline (or a bare transformer) run faster, in place and reversibly.

    Args:
        target: a pipeline with a `transformer`, or a transformer by itself.
        methods: what to apply, such as `GatedTaylor(threshold=0.1)` and `Solver()`; one of a kind.
        preset: "careful", "balanced" or "fast" instead of methods: what measurements favour for the family.
        profile: what `outpace tune` wrote, or its file, instead of methods. Pass the pipeline its number of steps; what
            differs from the pipeline, the steps or the size that it was tuned for stands among the trace's warnings.

    Returns:
        A handle, also a context manager that restores the pipeline at its end.

    Raises: UnsupportedModelError, ConflictError, ConfigError, InputError for a profile's file; the
        pipeline is untouched then.

    >>> with accelerate(pipe, GatedTaylor(threshold=0.1)) as run:  # doctest: +SKIP
    ...     image = pipe("a red circle", num_inference_steps=50).images[0]
    >>> print(run.summary())  # doctest: +SKIP
    """
    for method in methods:
        if not isinstance(method, Method):
            raise ConfigError(
                f"accelerate takes methods such as outpace.GatedTaylor(threshold=0.1), not {type(method).__name__}"
            )
    if sum((bool(methods), preset is not None, profile is not None)) > 1:
        raise ConfigError("give methods, a preset or a profile, and only one of them")
    if profile is not None:
        tuned = profile if isinstance(profile, Profile) else Profile.load(profile)
        return Acceleration(target, list(tuned.methods), tuned)
    if preset is not None:
        methods = tuple(preset_methods(preset, find_family(denoisers_of(target)[0][1]).name))
    if not methods:
        raise ConfigError("nothing to apply: give a method, such as outpace.GatedTaylor(threshold=0.1), or a preset")
    return Acceleration(target, list(methods))


def denoisers_of(target: Any) -> list[tuple[str, nn.Module]]:
    """The transformers of a pipeline with their names, or the transformer itself.

    Raises: UnsupportedModelError where there is none.
    """
    if isinstance(target, nn.Module):
        return [("transformer", target)]
    found = [
        (name, module)
        for name in ("transformer", "transformer_2", "unconditional_transformer")
        if isinstance(module := getattr(target, name, None), nn.Module)
    ]
    if not found:
        covered = sorted(t for _, f in FAMILIES.items() for t in f.transformers)
        raise UnsupportedModelError(
            f"{type(target).__name__} holds no transformer to accelerate (looked for .transformer); "
            f"covered are pipelines around: {', '.join(covered)}"
        )
    return found
