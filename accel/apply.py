"""`accelerate`: change a pipeline so that it runs faster, by methods, a speed-up, a preset or a profile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .denoiser import denoisers_of
from .families import find_family
from .handle import Acceleration
from .methods import Method, list_of_methods
from .presets import dial, free_methods, preset_methods
from .profile import Profile


def accelerate(
    target: Any,
    *methods: Method,
    speedup: float | None = None,
    preset: str | None = None,
    profile: Profile | str | Path | None = None,
) -> Acceleration:
    """Make a diffusers pipeline (or a bare transformer) run faster, in place and reversibly.

    Args:
        target: a pipeline with a `transformer`, or a transformer by itself.
        methods: what to apply, from `outpace.METHODS` or of your own; one for each place in a pipeline.
        speedup: instead of methods, how many times fewer transformer blocks are computed; the steps that are computed
            lie where they are of most use. 1 changes nothing, bit for bit. What only sees the prompt is computed once
            a run besides, with presets, too: that changes nothing either.
        preset: "careful", "balanced" or "fast" instead of methods: what measurements favour for the family. A method
            of a preset that cannot work in this pipeline is left out, and the summary says why.
        profile: what `outpace tune` wrote, or its file, instead of methods. Pass the pipeline its number of steps; what
            differs from the pipeline, the steps or the size that it was tuned for stands among the trace's warnings.

    Returns:
        A handle, also a context manager that restores the pipeline at its end.

    Raises: UnsupportedModelError, ConflictError, ConfigError, InputError for a profile's file; the
        pipeline is untouched then.

    >>> with accelerate(pipe, speedup=3) as run:  # doctest: +SKIP
    ...     image = pipe("a red circle", num_inference_steps=50).images[0]
    >>> print(run.summary())  # doctest: +SKIP
    """
    methods = tuple(list_of_methods(methods))
    if sum((bool(methods), speedup is not None, preset is not None, profile is not None)) > 1:
        raise ConfigError("give methods, a speed-up, a preset or a profile, and only one of them")
    if profile is not None:
        if not isinstance(profile, (Profile, str, Path)):
            raise ConfigError(f"profile is what `outpace tune` wrote, or its file, not {type(profile).__name__}")
        tuned = profile if isinstance(profile, Profile) else Profile.load(profile)
        return Acceleration(target, tuned.methods, tuned)
    if speedup is not None or preset is not None:
        family = find_family(denoisers_of(target)[0][1])
        chosen = [dial(speedup)] if speedup is not None else preset_methods(preset or "", family.name)
        return Acceleration(target, chosen, leave_out=preset is not None, beside=free_methods(family))
    if not methods:
        raise ConfigError(f"nothing to apply: give speedup=3, a method, such as {example()}, or a preset")
    return Acceleration(target, methods)


def example() -> str:
    """A method as one writes it, for messages."""
    return f"outpace.{type(dial(3.0)).__name__}(speedup=3)"
