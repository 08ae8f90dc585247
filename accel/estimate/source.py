"""From what a person names (a published model, a folder, a pipeline) to the configuration that is counted."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...errors import InputError, UnsupportedModelError
from . import calls as calls  # registers how each class is called
from .models import MODELS, Model
from .signature import SIGNATURES, Signature

_USUAL = (8, 4)
"""Pixels and frames a latent, of most autoencoders."""

_TOKENIZERS = ("tokenizer", "tokenizer_2")
_LARGE_TOKENIZER = 128
"""Tokenizers that allow as many tokens are those of published models, whose pipelines ask for a number of their own."""


def find_model(model: Any) -> Model:
    """What is known about `model`, without its weights.

    Args:
        model: a name of MODELS, a folder with a diffusers pipeline or transformer, such a pipeline or transformer.

    Raises: UnknownNameError for a name that is neither; InputError for a folder that holds no configuration;
        UnsupportedModelError for a transformer that cannot be counted.
    """
    if isinstance(model, (str, Path)):
        if isinstance(model, str) and model in MODELS:
            return MODELS[model]
        folder = Path(model).expanduser()
        return _read_folder(folder) if folder.exists() else MODELS[str(model)]
    transformer = getattr(model, "transformer", model)
    if not isinstance(transformer, nn.Module) or not hasattr(transformer, "config"):
        raise UnsupportedModelError(
            f"{type(model).__name__} is no diffusers pipeline with a transformer, and no diffusers transformer"
        )
    vae = getattr(model, "vae", None)
    return _local(
        name=type(model).__name__,
        transformer=_known_class(transformer),
        config=settings_of(transformer),
        space_time=_compression(vae) if vae is not None else None,
        text=_longest([getattr(getattr(model, part, None), "model_max_length", None) for part in _TOKENIZERS]),
        time_per_token=bool(getattr(getattr(model, "config", None), "expand_timesteps", False)),
        copies=2 if getattr(model, "transformer_2", None) is not None else 1,
    )


def settings_of(model: Any) -> dict[str, Any]:
    """The arguments that a diffusers model was made with."""
    return {key: value for key, value in dict(model.config).items() if not key.startswith("_")}


def signature_of(name: str) -> Signature:
    """How the transformer class `name` is called. Raises: UnsupportedModelError with those that are understood."""
    if name not in SIGNATURES:
        raise UnsupportedModelError(f"{name} cannot be estimated; it can be done for {', '.join(SIGNATURES)}")
    return SIGNATURES[name]


def build_on_meta(name: str, config: dict[str, Any]) -> nn.Module:
    """The diffusers class `name` with `config`, without memory for weights.

    Raises: UnsupportedModelError where this diffusers lacks the class or refuses the configuration.
    """
    import diffusers

    cls = getattr(diffusers, name, None)
    if cls is None:
        raise UnsupportedModelError(f"diffusers {diffusers.__version__} has no {name}; a newer one may")
    if config.get("conversion") is not None:
        from ..experts.converted import converted_class

        cls = converted_class(cls)
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # diffusers' advice to its own classes
            return cls.from_config(config) if "_class_name" in config else cls(**config)
    except (TypeError, ValueError, KeyError) as error:
        raise UnsupportedModelError(f"{name} cannot be built from this configuration: {error}") from error


def _read_folder(folder: Path) -> Model:
    index = folder / "model_index.json"
    if not index.is_file():
        config = _read(folder / "config.json")
        return _local(name=folder.name, transformer=_dense_class(config), config=config)
    parts = _read(index)
    config = _read(folder / "transformer" / "config.json")
    space_time = None
    if (folder / "vae" / "config.json").is_file():
        vae = _read(folder / "vae" / "config.json")
        space_time = _compression(build_on_meta(vae.get("_class_name", ""), vae))
    tokenizers = [folder / part / "tokenizer_config.json" for part in _TOKENIZERS]
    return _local(
        name=folder.name,
        transformer=_dense_class(config),
        config=config,
        space_time=space_time,
        text=_longest([_read(file).get("model_max_length") for file in tokenizers if file.is_file()]),
        time_per_token=bool(parts.get("expand_timesteps")),
        copies=2 if (folder / "transformer_2" / "config.json").is_file() else 1,
    )


def _read(file: Path) -> dict[str, Any]:
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"{file} does not exist; give a folder written by save_pretrained, of a pipeline or of its transformer"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {file}: {error}") from error
    if not isinstance(held, dict):
        raise InputError(f"{file} holds no configuration")
    return held


def _local(
    *,
    name: str,
    transformer: str,
    config: dict[str, Any],
    space_time: tuple[int, int] | None = None,
    **facts: Any,
) -> Model:
    video = signature_of(transformer).video
    space, time = space_time or _USUAL
    notes = (
        () if space_time else (f"without its autoencoder, {space} pixels{_frames(time, video)} a latent are assumed",)
    )
    side = config.get("sample_size")
    side = side * space if isinstance(side, int) else None
    return Model(
        name=name,
        transformer=transformer,
        config=config,
        space=space,
        time=time if video else 1,
        height=side,
        width=side,
        notes=notes,
        **facts,
    )


def _frames(time: int, video: bool) -> str:
    return f" and {time} frames" if video else ""


def _longest(lengths: list[Any]) -> int | None:
    # Only a tokenizer of fewer tokens than the pipeline asks for says anything: the large ones allow thousands.
    longest = max((n for n in lengths if isinstance(n, int)), default=0)
    return longest if 0 < longest < _LARGE_TOKENIZER else None


def _dense_class(config: dict[str, Any]) -> str:
    # A converted transformer is called and counted as the class it was made from.
    from ..experts.converted import PREFIX

    return config.get("_class_name", "").removeprefix(PREFIX)


def _known_class(transformer: nn.Module) -> str:
    names = [cls.__name__ for cls in type(transformer).__mro__]
    return next((name for name in names if name in SIGNATURES), names[0])


def _compression(vae: Any) -> tuple[int, int]:
    # diffusers says it in one of three ways, each pipeline knows which.
    config = dict(vae.config)
    space = getattr(vae, "spatial_compression_ratio", None) or config.get("spatial_compression_ratio")
    if space is None and "block_out_channels" in config:
        space = 2 ** (len(config["block_out_channels"]) - 1)
    time = (
        config.get("scale_factor_temporal")
        or getattr(vae, "temporal_compression_ratio", None)
        or config.get("temporal_compression_ratio")
        or 1
    )
    if space is None:
        raise UnsupportedModelError(f"{type(vae).__name__} does not say how much it compresses")
    return int(space), int(time)
