"""Profiles: settings that were tuned for one pipeline, with what they were tuned on and what is promised of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import ConfigError, InputError, OutpaceError
from ..files import read_bytes, write_text
from ..registry import suggestion
from .denoiser import denoisers_of
from .families import find_family
from .methods import Method, check_combination
from .part import Current, Part, Shared

VERSION = 1
"""Of the file format."""

SAMPLED = 16
"""Values of each weight that tell one training from another."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fingerprint:
    """What tells a pipeline from another one, as far as settings depend on it. None: not known."""

    pipeline: str | None = None
    """Class of the pipeline."""
    denoisers: dict[str, str] = field(default_factory=dict)
    """Class of each transformer, by its place in the pipeline."""
    configs: dict[str, str] = field(default_factory=dict)
    """Digest of each transformer's configuration."""
    weights: dict[str, str] = field(default_factory=dict)
    """Digest of some values of each transformer's weights; empty where they cannot be read (offloaded, quantised)."""
    dtype: str | None = None
    """Precision of the first transformer."""
    scheduler: str | None = None
    """Class of the scheduler."""
    scheduler_config: str | None = None
    """Digest of its configuration."""

    def __post_init__(self) -> None:
        for name in ("denoisers", "configs", "weights"):
            if not isinstance(getattr(self, name), dict):
                raise ConfigError(f"{name} of a fingerprint go by the transformer's place in the pipeline")

    def differences(self, other: Fingerprint) -> list[str]:
        """What of `other` is not as it is here, in words; nothing is said of what either does not know."""
        found = []
        for f in fields(self):
            mine, yours = getattr(self, f.name), getattr(other, f.name)
            if isinstance(mine, dict):
                pairs = [(f"{f.name} of {key}", mine[key], yours[key]) for key in mine if key in yours]
                if mine and yours and set(mine) != set(yours):
                    pairs.append((f.name, ", ".join(mine), ", ".join(yours)))
            else:
                pairs = [(f.name, mine, yours)]
            for name, one, two in pairs:
                if one is not None and two is not None and one != two:
                    said = name.replace("_", " ").replace("denoisers of", "class of").replace("configs of", "config of")
                    # A class or a precision says something to a person, a digest does not.
                    plain = f.name not in ("configs", "weights", "scheduler_config")
                    found.append(f"{said}: {two} instead of {one}" if plain else f"{said} differs")
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """Tuned settings, ready for `accelerate(pipe, profile=...)`.

    Raises: ConfigError where there is no step, or methods exclude each other.
    """

    methods: tuple[Method, ...]
    """What to apply; empty where only the number of steps was tuned."""
    steps: int
    """Steps of the solver that they were tuned for; pass as many to the pipeline."""
    target: tuple[str, ...] = ()
    """The clauses that were asked for."""
    fingerprint: Fingerprint = field(default_factory=Fingerprint)
    """The pipeline they were tuned on."""
    sample: tuple[int, ...] = ()
    """Shape of what the transformer is handed for one sample: stands for the size of the picture or clip."""
    call: dict[str, Any] = field(default_factory=dict)
    """What else was asked for, by the words of the command line ("guidance", "height"); of these only the size, through
    `sample`, is held against later runs."""
    pipeline: str = ""
    """The pipeline by name."""
    label: str = ""
    """The settings for people."""
    certified: bool = False
    """True where the promise in `bound` was reached on held-out prompts."""
    bound: dict[str, Any] = field(default_factory=dict)
    """Risk, alpha, numbers of prompts and misses, and the promise in words."""
    calibration: dict[str, Any] = field(default_factory=dict)
    """How they were found, and figures on calibration and held-out prompts."""
    versions: dict[str, str] = field(default_factory=dict)
    command: str = ""
    created: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.steps, int) or isinstance(self.steps, bool) or self.steps < 1:
            raise ConfigError(f"a profile needs a whole number of steps, 1 or more, not {self.steps!r}")
        check_combination(list(self.methods))

    def to_dict(self) -> dict[str, Any]:
        """The profile as plain data."""
        plain = asdict(self)
        # Every setting, defaults too: what was certified stays what it was when a later version changes a default.
        plain["methods"] = [{**method.to_dict(), **asdict(method)} for method in self.methods]
        return {"kind": "outpace profile", "version": VERSION, **plain}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Profile:
        """The profile that `data` describes, as `to_dict` wrote it.

        Raises: ConfigError for anything that is no profile of this version; UnknownNameError for an unknown method.
        """
        if not isinstance(data, Mapping) or data.get("kind") != "outpace profile":
            raise ConfigError("this is no profile of outpace; 'outpace tune' writes one")
        if data.get("version") != VERSION:
            raise ConfigError(
                f"the profile has version {data.get('version')}; this outpace reads version {VERSION}: tune again"
            )
        given = {key: value for key, value in data.items() if key not in ("kind", "version")}
        _check_keys("a profile", given, Profile)
        print_of = given.get("fingerprint", {})
        if not isinstance(print_of, Mapping) or not isinstance(given.get("methods"), (list, tuple)):
            raise ConfigError("a profile needs a list of methods, and a fingerprint that is an object")
        _check_keys("a fingerprint", print_of, Fingerprint)
        given["fingerprint"] = Fingerprint(**print_of)
        given["methods"] = tuple(Method.from_dict(method) for method in given["methods"])
        for name in ("target", "sample"):
            given[name] = tuple(given.get(name, ()))
        if "steps" not in given:
            raise ConfigError("a profile needs its number of steps")
        return Profile(**given)

    def save(self, path: Path | str) -> Path:
        """Write the profile as JSON, whole or not at all. Raises: InputError where that cannot be done."""
        path = Path(path).expanduser()
        write_text(path, json.dumps(self.to_dict(), indent=2, allow_nan=False, ensure_ascii=False) + "\n")
        return path

    @staticmethod
    def load(path: Path | str) -> Profile:
        """The profile in a file. Raises: InputError where it cannot be read; as `from_dict`."""
        content = read_bytes(path, "the profile")
        try:
            data = json.loads(content.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise InputError(f"the profile '{path}' is not JSON: {error}") from error
        try:
            return Profile.from_dict(data)
        except OutpaceError as error:
            error.args = (f"the profile '{path}' cannot be used: {error}",)
            raise
        except (TypeError, ValueError, AttributeError) as error:  # an entry of another kind than it should be
            raise ConfigError(f"the profile '{path}' cannot be used: {error}") from error


class Expectation(Part):
    """Holds the runs of an acceleration against the profile that it was made from."""

    place = "expectation"

    def __init__(self, profile: Profile, shared: Shared) -> None:
        super().__init__(shared)
        self.profile = profile

    def hold(self, target: Any) -> None:
        warn, profile = self.shared.trace.warn, self.profile
        if not profile.certified:
            warn("the profile is not certified: it kept its target on calibration prompts only")
        for difference in profile.fingerprint.differences(fingerprint_of(target, denoisers_of(target))):
            warn(f"the profile was tuned on another pipeline, nothing is promised of this one: {difference}")

    def begin(self, current: Current) -> None:
        """Warn where a denoiser call is not as the profile has it."""
        warn, steps, sample = self.shared.trace.warn, self.profile.steps, self.profile.sample
        if current.moment.num_steps is not None and current.moment.num_steps != steps:
            warn(
                f"the profile was tuned for {steps} steps and this run has {current.moment.num_steps}: "
                "nothing is promised of it"
            )
        shape = shape_of_sample(current.latents)
        if sample and shape and shape != sample:
            warn(
                f"the profile was tuned for samples of {'x'.join(map(str, sample))} and these are "
                f"{'x'.join(map(str, shape))} (another size of picture): nothing is promised of them"
            )


def fingerprint_of(target: Any, denoisers: list[tuple[str, nn.Module]]) -> Fingerprint:
    """The fingerprint of a pipeline with these denoisers, or of a transformer by itself."""
    # torch.compile(module) wraps a module; what it was made of says what it is.
    denoisers = [(name, getattr(module, "_orig_mod", module)) for name, module in denoisers]
    scheduler = getattr(target, "scheduler", None)
    config = getattr(scheduler, "config", None)
    weights = {name: digest for name, module in denoisers if (digest := weights_digest(module)) is not None}
    return Fingerprint(
        pipeline=None if isinstance(target, nn.Module) else type(target).__name__,
        denoisers={name: type(module).__name__ for name, module in denoisers},
        configs={name: config_digest(getattr(module, "config", {})) for name, module in denoisers},
        weights=weights,
        dtype=str(next(denoisers[0][1].parameters()).dtype).removeprefix("torch."),
        scheduler=None if scheduler is None else type(scheduler).__name__,
        scheduler_config=None if config is None else config_digest(config),
    )


def config_digest(config: Any) -> str:
    """A digest of a diffusers configuration, without the entries that say where it came from and who wrote it."""
    kept = {str(key): value for key, value in dict(config).items() if not str(key).startswith("_")}
    text = json.dumps(kept, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def weights_digest(module: nn.Module) -> str | None:
    """A digest of some values of every weight, the same in float32 and bfloat16, at hardly any cost.

    None where a weight cannot be read: it is offloaded, or quantised to something that is no plain number.
    """
    digest = hashlib.sha256()
    for name, weight in module.named_parameters():
        if weight.is_meta or not weight.dtype.is_floating_point or type(weight.data) is not torch.Tensor:
            return None
        digest.update(name.encode())
        picked = weight.detach().flatten()[:: max(1, weight.numel() // SAMPLED)][:SAMPLED]
        digest.update(picked.to(torch.bfloat16).float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def shape_of_sample(latents: Any) -> tuple[int, ...]:
    """Shape of one sample among latents, a tensor or a list of tensors; empty where there are none."""
    if isinstance(latents, (list, tuple)) and latents:
        return tuple(latents[0].shape)
    return tuple(latents.shape[1:]) if isinstance(latents, torch.Tensor) else ()


def observed_sample(module: nn.Module, run: Callable[[], object]) -> tuple[int, ...]:
    """Shape of one sample as `module` is handed it during `run`."""
    import inspect

    signature, name, seen = inspect.signature(type(module).forward), find_family(module).latents, []

    def look(module: nn.Module, args: Any, kwargs: Any) -> None:
        if not seen:
            seen.append(shape_of_sample(signature.bind_partial(module, *args, **kwargs).arguments.get(name)))

    handle = module.register_forward_pre_hook(look, with_kwargs=True)
    try:
        run()
    finally:
        handle.remove()
    return seen[0] if seen else ()


def _check_keys(what: str, given: Mapping[str, Any], cls: type) -> None:
    known = [f.name for f in fields(cls)]
    for key in given:
        if key not in known:
            raise ConfigError(f"{what} has no entry '{key}'{suggestion(str(key), known)}")
