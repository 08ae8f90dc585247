"""Real runs of a pipeline with given prompts and noise: what is made, held against what is made plainly."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from ...errors import ConfigError
from ..tap import Tap


def caller(pipe: Any, prompts: Sequence[Any], call: dict[str, Any], seed: int) -> Callable[..., object]:
    """A function that runs `pipe` for some of the prompts, by their places, each with noise of its own; keywords of
    that function go before those of `call`.

    Raises: ConfigError where there is no prompt, or the pipeline takes none.
    """
    if isinstance(prompts, str) or not len(prompts):
        raise ConfigError("give a list of prompts to calibrate with, such as ['a red circle', 'two green squares']")
    accepted = inspect.signature(type(pipe).__call__).parameters
    name = next((n for n in ("prompt", "class_labels") if n in accepted), None)
    if name is None:
        raise ConfigError(
            f"{type(pipe).__name__} takes neither prompt nor class_labels: instead of prompts, "
            "give a function that runs it"
        )
    given: dict[str, Any] = dict(call)
    if "output_type" in accepted:
        given.setdefault("output_type", "np")

    def run(places: Sequence[int], **changes: Any) -> object:
        noise = [torch.Generator().manual_seed(seed + i) for i in places]
        asked = one_a_prompt({**given, **changes}, len(places))
        return pipe(**{name: [prompts[i] for i in places]}, **asked, generator=noise)

    return run


def one_a_prompt(arguments: dict[str, Any], count: int) -> dict[str, Any]:
    """The arguments of a call for `count` prompts: a negative prompt that is one text is repeated for each, as
    pipelines want it where prompts are a list."""
    negative = arguments.get("negative_prompt")
    return {**arguments, "negative_prompt": [negative] * count} if isinstance(negative, str) else arguments


def made(pipe: Any, run: Callable[[], object]) -> tuple[torch.Tensor, torch.Tensor]:
    """What a run makes, and the largest difference that it could have, by sample: its pictures where it returns them,
    otherwise its final latents, which an error may be near in and yet far in the picture."""
    kept: list[torch.Tensor] = []

    def step(inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = inner(*args, **kwargs)
        kept[:] = [result[0].detach().float().cpu()]
        return result

    tap = Tap(pipe.scheduler, "step", step)
    try:
        with torch.no_grad():
            pictures = pictures_of(run())
    finally:
        tap.remove()
    if pictures is not None:
        return pictures, torch.ones(len(pictures))
    latents = kept[0].flatten(1)
    return latents, latents.amax(1) - latents.amin(1)


def pictures_of(output: object) -> torch.Tensor | None:
    """(samples, numbers from 0 to 1) of pictures or clips in what a pipeline returned; None where there are none."""
    media: Any = getattr(output, "images", getattr(output, "frames", output))
    try:
        numbers = torch.stack([torch.as_tensor(np.asarray(one)) for one in media])
    except (TypeError, ValueError, RuntimeError):
        return None  # nothing, or samples of several sizes, or objects that are no arrays
    numbers = numbers.float() / (255 if numbers.dtype == torch.uint8 else 1)
    if numbers.ndim < 3 or not bool(((numbers > -1e-3) & (numbers < 1.001)).all()):
        return None  # latents, which were asked for
    return numbers.flatten(1)


def psnr(one: torch.Tensor, other: torch.Tensor, peak: torch.Tensor) -> list[float]:
    """PSNR in dB of each sample of `one` towards `other`, both (samples, numbers); -inf where one is not finite."""
    error = (one - other).square().mean(1)
    values = 10 * (peak.square() / error.clamp_min(1e-12)).log10()
    return [value if value == value else float("-inf") for value in values.tolist()]
