"""What a teacher was asked and what it answered, sample by sample, recorded from its own pipeline and kept on disk.

Every sample holds noised latents, their timestep and the embedding of its prompt as the pipeline's encoders gave it. So
nothing is encoded or generated twice, and a student is trained on just what it will be asked at every noise level.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ...errors import InputError, UnsupportedModelError
from ...files import whole_file

if TYPE_CHECKING:
    from ..load import Loaded

_VERSION = 1


@dataclass(frozen=True, slots=True)
class TeacherCalls:
    """Samples of calls of one transformer.

    Shapes: N samples.
    """

    fingerprint: str
    """Of the teacher and everything that the samples depend on."""
    samples: dict[str, Tensor]
    """Argument -> its value for each sample (N, ...)."""
    shared: dict[str, Any]
    """Arguments that are the same for all samples."""
    output: Tensor
    """What the teacher answered (N, ...)."""

    def __len__(self) -> int:
        return len(self.output)

    def take(self, index: Tensor, device: torch.device | str = "cpu") -> tuple[dict[str, Any], Tensor]:
        """Keyword arguments for the samples at `index`, and the teacher's answers."""
        shared = {name: v.to(device) if isinstance(v, Tensor) else v for name, v in self.shared.items()}
        chosen = {name: value[index].to(device) for name, value in self.samples.items()}
        return {**shared, **chosen, "return_dict": False}, self.output[index].to(device)

    def noise_levels(self) -> Tensor:
        """The timestep of every sample (N), as the transformer is told it; higher is noisier."""
        return self.samples["timestep"].float().reshape(len(self), -1).mean(1)


def record_teacher(
    loaded: Loaded,
    prompts: Sequence[Any],
    arguments: Mapping[str, Any],
    *,
    seed: int = 0,
    batch: int = 16,
    folder: Path | None = None,
    progress: bool = True,
) -> TeacherCalls:
    """Run the teacher's pipeline on `prompts` and keep every call of its transformer; read again where it was kept.

    Args:
        loaded: the dense pipeline, with one transformer.
        arguments: of the pipeline's call, from `call_arguments`.
        seed: of the noise of the first prompt; each prompt has its own.
        folder: kept here as `calls-FINGERPRINT.pt`, whole or not at all; None keeps nothing.

    Raises: InputError for fewer than two prompts or a file that cannot be read; UnsupportedModelError for a pipeline
        whose calls cannot be taken apart by sample.
    """
    from ...accel.denoiser import denoisers_of
    from ...accel.profile import weights_digest

    found = denoisers_of(loaded.pipe)
    if len(found) != 1:
        names = ", ".join(name for name, _ in found)
        raise UnsupportedModelError(
            f"{type(loaded.pipe).__name__} has several transformers ({names}); one is distilled"
        )
    if len(prompts) < 2:
        raise InputError(f"a teacher is recorded on at least 2 prompts, not {len(prompts)}")
    transformer = found[0][1]
    told = [_VERSION, type(transformer).__name__, weights_digest(transformer), list(prompts), dict(arguments), seed]
    fingerprint = hashlib.sha256(json.dumps(told, default=str).encode()).hexdigest()[:16]
    path = None if folder is None else folder / f"calls-{fingerprint}.pt"
    if path is not None and path.is_file():
        return _read(path, fingerprint)
    first = _record(loaded, transformer, prompts[:1], [seed], arguments)
    parts = []
    for start in tqdm(range(0, len(prompts), batch), desc="recording the teacher", disable=not progress):
        some = prompts[start : start + batch]
        seeds = [seed + start + i for i in range(len(some))]
        parts += _record(loaded, transformer, some, seeds, arguments)
    calls = _joined(fingerprint, first[0], parts, transformer)
    if path is not None:
        with whole_file(path) as part:
            torch.save([fingerprint, calls.samples, calls.shared, calls.output], part)
    return calls


def only_transformer(loaded: Loaded) -> Any:
    """The one transformer of a pipeline. Raises: UnsupportedModelError where there are several."""
    from ...accel.denoiser import denoisers_of

    found = denoisers_of(loaded.pipe)
    if len(found) > 1:
        names = ", ".join(name for name, _ in found)
        raise UnsupportedModelError(
            f"{type(loaded.pipe).__name__} has several transformers ({names}); one is distilled"
        )
    return found[0][1]


def _record(
    loaded: Loaded, transformer: nn.Module, prompts: Sequence[Any], seeds: list[int], arguments: Mapping[str, Any]
) -> list[dict[str, Any]]:
    from ..load import run_pipeline

    names = list(inspect.signature(transformer.forward).parameters)
    kept: list[dict[str, Any]] = []

    def note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        output = result[0]
        if not isinstance(output, Tensor):
            raise UnsupportedModelError(f"{type(transformer).__name__} gives a list of samples; it cannot be distilled")
        call = {**dict(zip(names, args, strict=False)), **kwargs}
        call.pop("return_dict", None)
        copied = {name: v.detach().cpu().clone() if isinstance(v, Tensor) else v for name, v in call.items()}
        kept.append({**copied, "": output.detach().cpu().clone()})

    hook = transformer.register_forward_hook(note, with_kwargs=True)
    try:
        run_pipeline(loaded, prompts, seeds, dict(arguments))
    finally:
        hook.remove()
    return kept


def _joined(
    fingerprint: str, alone: dict[str, Any], calls: list[dict[str, Any]], transformer: nn.Module
) -> TeacherCalls:
    """One table of samples; what grows with the number of prompts is a sample's own, everything else is shared."""
    model = type(transformer).__name__
    more, one = calls[0], alone
    rows, single = len(more[""]), len(one[""])
    samples, shared = {}, {}
    for name, value in more.items():
        if isinstance(value, Tensor) and value.ndim and len(value) * single == len(one[name]) * rows != 0:
            samples[name] = torch.cat([call[name] for call in calls])
        elif name == "timestep" and isinstance(value, Tensor) and value.numel() == 1:
            samples[name] = torch.cat([call[name].reshape(1).expand(len(call[""])) for call in calls])
        elif any(not _same(call.get(name), value) for call in calls):
            raise UnsupportedModelError(
                f"{model} is called with another '{name}' at some steps; it cannot be distilled"
            )
        else:
            shared[name] = value
    output = samples.pop("", None)
    if output is None or "timestep" not in samples:
        raise UnsupportedModelError(f"the calls of {model} cannot be taken apart by sample; it cannot be distilled")
    return TeacherCalls(fingerprint, samples, shared, output)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and torch.equal(a, b)
    return type(a) is type(b) and not isinstance(a, Tensor) and a == b


def _read(path: Path, fingerprint: str) -> TeacherCalls:
    try:
        held = torch.load(path, weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise InputError(f"cannot read {path}: it is damaged; remove it and the teacher is recorded again") from error
    if not isinstance(held, list) or len(held) != 4 or held[0] != fingerprint:
        raise InputError(f"{path} holds other calls than its name says; remove it and the teacher is recorded again")
    return TeacherCalls(*held)
