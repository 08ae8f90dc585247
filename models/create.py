"""One way to a model: create it by name and size, save it with its configuration, load it again.

>>> import torch
>>> model = create("vig", "toy", classes=7)
>>> model(torch.zeros(1, 3, 32, 32)).shape, model.config.classes
(torch.Size([1, 7]), 7)
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import ConfigError, InputError, UnknownNameError
from ..registry import suggestion
from .companion import MODELS, Companion
from .settings import changed, from_data, to_data

FORMAT = 1
TOY = "toy"
"""The size that every model has: as small as it goes, to try things on."""


def create(
    name: str,
    size: str | None = None,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    **changes: Any,
) -> nn.Module:
    """A model with fresh weights.

    Args:
        name: of its paper, as `outpace models list` has it.
        size: one of the paper's, or "toy"; its configuration's defaults where None.
        device: where it is made; "meta" takes no memory.
        dtype: of its numbers; torch's default where None.
        changes: fields of its configuration that differ from the size's. A nested one takes a dict of what changes.

    Raises:
        UnknownNameError: no such model, size or field; the message has the valid ones.
        ConfigError: a method without a model of its own, or values that cannot be.
    """
    card = MODELS[name]
    config = configuration(name, size, **changes)
    assert card.build is not None
    if device is None:
        model = card.build(config)
    else:
        with torch.device(device):
            model = card.build(config)
    return model if dtype is None else model.to(dtype)


def configuration(name: str, size: str | None = None, **changes: Any) -> Any:
    """What `create` builds a model from. Raises: as `create`."""
    card = MODELS[name]
    if card.build is None or card.config is None:
        raise ConfigError(f"'{name}' is a method, not a model: {card.use}")
    if size is None:
        return from_data(card.config, changes)
    sizes = {**{known: entry.config for known, entry in card.sizes.items()}, TOY: card.toy}
    if size not in sizes:
        raise UnknownNameError(f"{name} has no size '{size}'{suggestion(size, list(sizes))}")
    return changed(sizes[size], changes)


def config_of(model: nn.Module) -> Any:
    """The configuration a model of ours was built from; transformers' own models keep it beside theirs.

    Raises: ConfigError: it is no model of ours.
    """
    for place in ("settings", "config"):
        config = getattr(model, place, None)
        if dataclasses.is_dataclass(config) and _name_of(config) is not None:
            return config
    raise ConfigError(f"{type(model).__name__} is no model that outpace.models.create makes; torch.save takes any")


def save(model: nn.Module, folder: str | os.PathLike[str]) -> Path:
    """Write `config.json` and `model.safetensors` into a folder, which is made; the folder.

    Raises:
        ConfigError: the model is none of ours.
        InputError: the folder cannot be written.
    """
    from safetensors.torch import save_model

    config, folder = config_of(model), Path(folder)
    kinds = {str(value.dtype).removeprefix("torch.") for value in model.parameters()}
    if len(kinds) != 1:
        raise ConfigError(f"one type of numbers can be saved, not {', '.join(sorted(kinds))}: call model.to(...) first")
    data = {"format": FORMAT, "model": _name_of(config), "dtype": kinds.pop(), "config": to_data(config)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_model(model, str(folder / "model.safetensors"), metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror or error}") from error
    return folder


def load(folder: str | os.PathLike[str], *, device: torch.device | str | None = None) -> nn.Module:
    """The model that `save` wrote, to the bit, in eval mode.

    Raises: InputError: the folder does not hold one, or its files are damaged or do not belong together.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    folder = Path(folder)
    try:
        data = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise InputError(f"{folder}/config.json is not one that outpace.models.save writes (format {FORMAT})")
        card = _card_of(data["model"])
        dtype = getattr(torch, data["dtype"])
        with torch.random.fork_rng(devices=[]):  # the weights drawn here are thrown away
            model = card.build(from_data(card.config, data["config"])).to(dtype)
        load_model(model, str(folder / "model.safetensors"))
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RuntimeError, SafetensorError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{folder} holds no model of outpace: {_first_line(error)}") from error
    return model.to(device).eval() if device is not None else model.eval()


def _card_of(name: str) -> Any:
    card = MODELS[name]
    if card.build is None:
        raise ConfigError(f"'{name}' is a method, not a model")
    return card


def _name_of(config: Any) -> str | None:
    """The first model whose configurations are of this type."""
    return next((name for name, card in MODELS.items() if card.config is type(config)), None)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def sizes_of(card: Companion) -> dict[str, Any]:
    """Every configuration that has a name: the paper's, and the toy."""
    return {**{name: size.config for name, size in card.sizes.items()}, TOY: card.toy}
