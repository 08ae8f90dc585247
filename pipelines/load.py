"""From what a person names (a pocket, a folder, a hub id) to a pipeline, and from their words to its arguments."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import InputError, OutpaceError, UnknownNameError
from ..files import is_there
from .folder import check_parts, notes_on, read_card, read_index, told_as_input
from .parts import converted_parts, pipeline_class
from .quiet import quiet_loading
from .setup import Setup, set_up

if TYPE_CHECKING:
    import numpy as np
    import torch
    from diffusers import DiffusionPipeline

ARGUMENTS = {
    "steps": "num_inference_steps",
    "guidance": "guidance_scale",
    "height": "height",
    "width": "width",
    "frames": "num_frames",
}
"""A person's word for a setting of a pipeline call, and diffusers' word for it."""

TRUE_SCALE = "true_cfg_scale"
"""diffusers' word for the scale of guidance by two calls a step, where guidance_scale means an embedding."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where a pipeline comes from; finding out costs nothing but a look at the disk."""

    name: str
    """As the person wrote it."""
    kind: Literal["pocket", "folder", "hub"]
    """"pocket": shipped with outpace. "folder": a diffusers directory. "hub": fetched by diffusers, or in its cache."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """A pipeline ready to be called, with what is known about calling it."""

    pipe: Any
    """The diffusers pipeline; a plain one, use it as you like."""
    source: Source
    pocket: Any = None
    """Its entry in POCKETS or SISTERS, where it is one, shipped or trained again."""
    call: dict[str, Any] = field(default_factory=dict)
    """Arguments of the call that this pipeline wants unless it is told otherwise."""
    prompt_argument: str = "prompt"
    """"prompt", or "class_labels" where the pipeline takes classes."""
    steps: int = 50
    """Steps when none are asked for."""
    notes: tuple[str, ...] = ()
    """What a user should know of it, such as files in its folder that were not loaded."""


def find_pipeline(name: str) -> Source:
    """What `name` means, without loading anything.

    Raises: UnknownNameError where it is no pocket, no folder and does not look like a hub id; InputError for a folder
        that holds no diffusers pipeline.
    """
    from .pocket.recipes import POCKETS

    if name in POCKETS:
        return Source(name=name, kind="pocket")
    folder = Path(name).expanduser() if is_there(name) else Path()
    if name and is_there(name) and folder.is_dir():
        if not (folder / "model_index.json").is_file():
            raise InputError(
                f"the folder '{name}' holds no diffusers pipeline: it has no model_index.json "
                "(pipe.save_pretrained(folder) writes one)"
            )
        read_index(folder)
        return Source(name=name, kind="folder")
    if name and is_there(name):
        raise InputError(f"'{name}' is a file; give the folder that model_index.json lies in")
    if _HUB_ID.fullmatch(name):
        return Source(name=name, kind="hub")
    near = difflib.get_close_matches(name, list(POCKETS), n=1)
    raise UnknownNameError(
        f"no pipeline '{name if len(name) <= 80 else name[:80] + '...'}'"
        + (f"; did you mean '{near[0]}'?" if near else ";")
        + f" give a pocket ({', '.join(POCKETS)}), a folder written by save_pretrained, or a hub id such as owner/model"
    )


def load_pipeline(
    name: str,
    *,
    dtype: torch.dtype | None = None,
    device: str = "auto",
    progress: bool = True,
    variant: str | None = None,
    setup: Setup | None = None,
) -> Loaded:
    """Load what `name` means and move it to `device`.

    Args:
        name: a pocket ("flux"), a diffusers directory, or a hub id ("owner/model").
        dtype: of the weights; None: float32 on a CPU and for pockets, bfloat16 elsewhere.
        device: "auto" (CUDA where there is one, else CPU) or what torch calls it ("cpu", "cuda:1", "mps").
        progress: show diffusers' bar while the parts are loaded.
        variant: of the files of weights, such as "fp16" for diffusion_pytorch_model.fp16.safetensors.
        setup: adapters, 8-bit weights, attention, compilation and offloading; None for none of it.

    Raises: UnknownNameError, InputError: where nothing can be loaded from there, or there is no such device.
    """
    import torch

    source = find_pipeline(name)
    pocket = _pocket_of(source)
    place = choose_device(device)
    if dtype is None:
        dtype = torch.float32 if pocket is not None or place.type == "cpu" else torch.bfloat16
    with quiet_loading(progress):
        if pocket is not None:
            loaded = _load_pocket(pocket, source, dtype, variant)
        else:
            loaded = _load_folder_or_hub(source, dtype, variant)
    with _moved(place):
        set_up(loaded.pipe, setup or Setup(), place)
    return loaded


def _load_pocket(name: str, source: Source, dtype: torch.dtype, variant: str | None = None) -> Loaded:
    from .pocket.sisters import trained
    from .pocket.store import load_pocket

    pocket = trained(name)
    if variant is not None:
        raise InputError(f"'{source.name}' is a pocket, whose weights have no variants; leave --variant out")
    where = name if source.kind == "pocket" else Path(source.name).expanduser()
    with told_as_input(source.name, None if source.kind == "pocket" else Path(where)):
        pipe = load_pocket(where, torch_dtype=dtype)
    return Loaded(
        pipe=pipe,
        source=source,
        pocket=pocket,
        call=dict(pocket.call),
        prompt_argument=pocket.prompt_argument,
        steps=pocket.steps,
        notes=notes_on(Path(where)) if source.kind == "folder" else (),
    )


def _pocket_of(source: Source) -> str | None:
    # A pocket that someone trained again is called as the shipped one; its card says which it is.
    from .pocket.recipes import POCKETS
    from .pocket.sisters import is_sister

    if source.kind != "folder":
        return source.name if source.kind == "pocket" else None
    name = (read_card(Path(source.name).expanduser()) or {}).get("pocket")
    return name if isinstance(name, str) and (name in POCKETS or is_sister(name)) else None


def _load_folder_or_hub(source: Source, dtype: torch.dtype, variant: str | None = None) -> Loaded:
    from diffusers import DiffusionPipeline

    local = Path(source.name).expanduser() if source.kind == "folder" else None
    options: dict[str, Any] = {"torch_dtype": dtype, **({"variant": variant} if variant else {})}
    with told_as_input(source.name, local, variant):
        if local is not None:
            check_parts(local)
        parts = converted_parts(local, **options) if local is not None else {}
        loader = pipeline_class(local) if local is not None else DiffusionPipeline
        pipe = loader.from_pretrained(str(local or source.name), **options, **parts)
    return Loaded(
        pipe=pipe,
        source=source,
        prompt_argument="class_labels" if "class_labels" in accepted_by(pipe) else "prompt",
        steps=_default_steps(pipe),
        notes=notes_on(local) if local is not None else (),
    )


@contextmanager
def _moved(place: torch.device) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError) as error:
        if isinstance(error, OutpaceError) or "memory" in str(error):
            raise
        raise InputError(f"cannot move the pipeline to '{place}': {_first_sentence(error)}") from error


def choose_device(name: str) -> torch.device:
    """The torch device that `name` means here. Raises: InputError where this machine has none of the kind."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type == "meta":
            raise RuntimeError("nothing is computed there")
    except RuntimeError as error:
        raise InputError(f"'{name[:40]}' is no device; write auto, cpu, cuda, cuda:1 or mps") from error
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, ValueError, ImportError) as error:
        raise InputError(
            f"cannot use the device '{name}': {_first_sentence(error)} ('outpace doctor' lists what there is)"
        ) from error
    return device


def read_prompts(loaded: Loaded, texts: Sequence[str]) -> list[Any]:
    """Prompts as the pipeline takes them: text, or class numbers for a class-conditional one.

    Raises: InputError naming the first prompt that the pipeline cannot understand.
    """
    if loaded.pocket is not None:
        _check_words(loaded, texts)
    if loaded.prompt_argument != "class_labels":
        return list(texts)
    labels = getattr(loaded.pipe, "labels", {})
    classes = getattr(loaded.pipe.transformer.config, "num_embeds_ada_norm", 1000)
    numbers: list[int] = []
    for text in texts:
        word = text.strip()
        if word.isdecimal() and int(word) < classes:
            numbers.append(int(word))
        elif word in labels:
            numbers.append(labels[word])
        else:
            raise InputError(f"'{text}' is no class of this pipeline; give a number from 0 to {classes - 1}")
    return numbers


def call_arguments(loaded: Loaded, **settings: Any) -> dict[str, Any]:
    """The pipeline's arguments for `settings`, named as in ARGUMENTS; None leaves the pipeline's own value.

    Raises: InputError for a setting that this pipeline does not have.
    """
    accepted = accepted_by(loaded.pipe)
    arguments = {"num_inference_steps": loaded.steps, **loaded.call}
    for word, value in settings.items():
        if value is None:
            continue
        name = argument_of(loaded.pipe, word)
        if name not in accepted:
            raise InputError(f"{type(loaded.pipe).__name__} takes no --{word}; leave it out")
        arguments[name] = value
    if arguments.get(TRUE_SCALE, 1) > 1 and "negative_prompt" in accepted:
        arguments.setdefault("negative_prompt", "")  # without one the scale has no effect
    check_size(loaded.pipe, arguments)
    return arguments


def argument_of(pipe: Any, word: str) -> str:
    """What a pipeline calls a setting of ARGUMENTS.

    Of guidance, pipelines of transformers that may be distilled have two: "guidance_scale" goes into the transformer
    as an embedding, and has no effect on one without it; "true_cfg_scale" guides by two calls a step.
    """
    if word != "guidance":
        return ARGUMENTS[word]
    config, accepted = getattr(getattr(pipe, "transformer", None), "config", None), accepted_by(pipe)
    only = ARGUMENTS[word] not in accepted or not getattr(config, "guidance_embeds", True)
    return TRUE_SCALE if only and TRUE_SCALE in accepted else ARGUMENTS[word]


def check_size(pipe: Any, arguments: dict[str, Any]) -> None:
    """Raises: InputError for a side of less than two latents, which no transformer has a token for."""
    factor = getattr(pipe, "vae_scale_factor_spatial", None) or getattr(pipe, "vae_scale_factor", None) or 1
    if not isinstance(factor, int):
        return
    for word in ("height", "width"):
        value = arguments.get(word)
        if isinstance(value, int) and value < 2 * factor:
            raise InputError(f"--{word} {value} is too small for {type(pipe).__name__}: take {2 * factor} or more")


def makes_clips(loaded: Loaded) -> bool:
    """True where the pipeline makes clips rather than pictures."""
    return loaded.pocket.kind == "video" if loaded.pocket is not None else "num_frames" in accepted_by(loaded.pipe)


def makes_clouds(loaded: Loaded) -> bool:
    """True where the pipeline makes point clouds, with a picture of each."""
    return "num_points" in accepted_by(loaded.pipe)


def call_pipeline(loaded: Loaded, prompts: Sequence[Any], seeds: Sequence[int], arguments: dict[str, Any]) -> Any:
    """One call of the pipeline: its output, in numpy.

    Each sample has a generator of its own, so that it does not depend on what it shares the batch with.

    Raises: InputError where there is not one seed a prompt, or the pipeline refuses its arguments.
    """
    import torch

    from ..accel.calibration.runs import one_a_prompt

    if len(prompts) != len(seeds):
        raise InputError(f"{len(prompts)} prompts but {len(seeds)} seeds; give one seed a prompt")
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    own = loaded.pocket.given if loaded.pocket is not None else None
    given: dict[str, Any] = {loaded.prompt_argument: list(prompts), "generator": generators, "output_type": "np"}
    given |= {**(own(prompts, seeds) if own else {}), **arguments}
    with refused(loaded.pipe):
        return loaded.pipe(**one_a_prompt(given, len(prompts)))


@contextmanager
def refused(pipe: Any) -> Iterator[None]:
    """What a pipeline says against the arguments of its call, as one line. Raises: InputError."""
    try:
        yield
    except (ValueError, OverflowError) as error:
        if isinstance(error, OutpaceError):
            raise
        raise InputError(f"{type(pipe).__name__} refused: {_first_sentence(error)}") from error


def media_of(loaded: Loaded, made: Any) -> list[np.ndarray]:
    """What `call_pipeline` made: a picture (HWC) or a clip (THWC) a prompt, floats in 0..1.

    Raises: InputError where it is neither.
    """
    import numpy as np

    media = getattr(made, "images", None)
    if media is None:
        media = getattr(made, "frames", None)
    if media is None:
        raise InputError(
            f"{type(loaded.pipe).__name__} makes neither pictures nor clips; outpace generates no other kind"
        )
    return [np.asarray(sample, dtype=np.float32) for sample in media]


def run_pipeline(
    loaded: Loaded, prompts: Sequence[Any], seeds: Sequence[int], arguments: dict[str, Any]
) -> list[np.ndarray]:
    """A picture or a clip a prompt: `media_of` what `call_pipeline` makes; raises what they raise."""
    return media_of(loaded, call_pipeline(loaded, prompts, seeds, arguments))


def accepted_by(pipe: DiffusionPipeline | type[DiffusionPipeline]) -> set[str]:
    """Names of the arguments that a pipeline, or a class of pipelines, takes."""
    kind = pipe if isinstance(pipe, type) else type(pipe)
    return set(inspect.signature(kind.__call__).parameters)


def _default_steps(pipe: DiffusionPipeline) -> int:
    parameter = inspect.signature(type(pipe).__call__).parameters.get("num_inference_steps")
    return parameter.default if parameter is not None and isinstance(parameter.default, int) else 50


def _check_words(loaded: Loaded, texts: Sequence[str]) -> None:
    # A pocket saw a few dozen words in its life; another word would silently give an arbitrary picture.
    examples = [str(p) for p in loaded.pocket.prompts(512, "train")] + [
        str(p) for p in loaded.pocket.prompts(64, "held_out")
    ]
    known = {word for example in examples for word in _words(example)}
    for text in texts:
        words = _words(text)
        strange = [word for word in words if word not in known]
        if not words or strange:
            raise InputError(
                f"the pocket '{loaded.source.name}' does not know "
                + (f"the word '{strange[0]}'" if strange else "an empty prompt")
                + f'; its words are {", ".join(sorted(known))}. For example: "{examples[-1]}"'
            )


def _words(text: str) -> list[str]:
    return re.findall(r"[\w-]+", text.lower())


def _first_sentence(error: Exception) -> str:
    """What a library says first; advice to its own authors follows for a page."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return line.split(". ")[0][:300].rstrip(".")
