"""How a loaded pipeline is set up before it runs: adapters, 8-bit weights, attention backends, compilation, offloading.

Plain data says what is asked for, so that another process can be told the same; every part is diffusers' own way, and
what a pipeline or this machine cannot do is refused in one line.
"""

from __future__ import annotations

import importlib.util
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..errors import ConfigError, InputError, MissingDependencyError
from ..files import is_there

if TYPE_CHECKING:
    import torch

OFFLOADS = ("model", "group")
"""Ways of keeping on the device only what runs: whole parts, or their layers."""

QUANTIZATIONS = ("int8",)


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """What is done to a pipeline once it is loaded."""

    loras: tuple[str, ...] = ()
    """FILE or FILE:SCALE, a folder or a hub id, in the order in which they are put on."""
    offload: str | None = None
    """One of OFFLOADS; needs another device than the CPU."""
    compiled: bool = False
    """The transformer's blocks go through torch.compile: the first call of each shape takes minutes."""
    attention: str | None = None
    """A backend of diffusers' attention dispatch ("native", "flash", "sage" ...)."""
    quantize: str | None = None
    """One of QUANTIZATIONS: weights of the transformer's linear layers, by torchao."""

    def __post_init__(self) -> None:
        if self.offload is not None and self.offload not in OFFLOADS:
            raise ConfigError(f"--offload is {' or '.join(OFFLOADS)}, not '{self.offload}'")
        if self.quantize is not None and self.quantize not in QUANTIZATIONS:
            raise ConfigError(f"--quantize is {' or '.join(QUANTIZATIONS)}, not '{self.quantize}'")
        for text in self.loras:
            read_lora(text)

    def check(self) -> None:
        """What can be said before anything is loaded. Raises: MissingDependencyError, InputError."""
        if self.quantize is not None and importlib.util.find_spec("torchao") is None:
            raise MissingDependencyError("--quantize int8 needs torchao: pip install 'outpace[int8]'")
        if self.loras and importlib.util.find_spec("peft") is None:
            raise MissingDependencyError("--lora needs peft: pip install 'outpace[lora]'")
        if self.compiled and not any(map(shutil.which, ("g++", "clang++", "cl"))):
            raise MissingDependencyError(
                "--compile needs a C++ compiler: apt-get install g++ ('outpace doctor' says more)"
            )


def read_lora(text: str) -> tuple[str, float]:
    """Where an adapter is, and its scale.

    >>> read_lora("style.safetensors:0.8"), read_lora("owner/style")
    (('style.safetensors', 0.8), ('owner/style', 1.0))

    Raises: InputError where it is neither a file, a folder nor a hub id, or the scale is no number.
    """
    place, colon, scale = text.rpartition(":")
    if not colon or is_there(text):
        place, scale = text, "1"
    try:
        number = float(scale)
    except ValueError:
        number = float("nan")
    if not -100 <= number <= 100:
        raise InputError(
            f"cannot read the scale of --lora '{text[:80]}'; write FILE or FILE:SCALE, such as x.safetensors:0.8"
        )
    if not place.strip():
        raise InputError("--lora names no file")
    looks_like_hub = place.count("/") == 1 and not place.endswith((".safetensors", ".bin")) and place[0] not in "/.~"
    if not is_there(place) and not looks_like_hub:
        raise InputError(f"cannot read the adapter '{place[:80]}': there is no such file or folder")
    return place, number


def set_up(pipe: Any, setup: Setup, device: torch.device) -> None:
    """Do to `pipe`, which is on the CPU, what `setup` says, and put it on `device`.

    Raises: InputError, ConfigError, MissingDependencyError where it cannot be done.
    """
    setup.check()
    if setup.offload is not None and device.type == "cpu":
        raise InputError(
            f"--offload {setup.offload} keeps a GPU's memory small, and the device is the cpu; leave it out"
        )
    _add_loras(pipe, setup)
    if setup.attention is not None:
        _set_attention(pipe, setup.attention)
    if setup.quantize is not None:
        _quantize(pipe)
    if setup.offload is None:
        pipe.to(device)
    elif setup.offload == "model":
        pipe.enable_model_cpu_offload(device=device)
    else:
        pipe.enable_group_offload(onload_device=device, offload_type="leaf_level")
    if setup.compiled:
        _compile(pipe)


def _add_loras(pipe: Any, setup: Setup) -> None:
    if not setup.loras:
        return
    if not hasattr(pipe, "load_lora_weights"):
        raise InputError(f"{type(pipe).__name__} takes no --lora; leave it out")
    names, scales = [], []
    for number, text in enumerate(setup.loras):
        place, scale = read_lora(text)
        names.append(f"lora{number}")
        scales.append(scale)
        path = Path(place).expanduser()
        where = {"pretrained_model_name_or_path_or_dict": place}
        if path.is_file():
            where = {"pretrained_model_name_or_path_or_dict": str(path.parent), "weight_name": path.name}
        try:
            with quietly():
                pipe.load_lora_weights(**where, adapter_name=names[-1])
        except Exception as error:  # safetensors, peft, the hub and diffusers have their own
            raise InputError(f"cannot load the adapter '{place}': {_first_line(error)}") from error
        if names[-1] not in {name for found in pipe.get_list_adapters().values() for name in found}:
            raise InputError(f"the adapter '{place}' has no weights for {type(pipe).__name__}; is it another model's?")
    pipe.set_adapters(names, adapter_weights=scales)
    if setup.quantize is not None:  # what is quantised has to be one matrix
        pipe.fuse_lora()
        pipe.unload_lora_weights()


def _set_attention(pipe: Any, backend: str) -> None:
    from diffusers.models.attention_dispatch import AttentionBackendName

    from ..accel.denoiser import denoisers_of

    known = [entry.value for entry in AttentionBackendName]
    if backend not in known:
        raise InputError(f"--attention: no backend '{backend[:40]}' (have: {', '.join(known)})")
    for _, transformer in denoisers_of(pipe):
        try:
            with quietly():
                cast("Any", transformer).set_attention_backend(backend)
        except Exception as error:  # a package that is missing, or one for another device
            raise InputError(f"--attention {backend}: {_first_line(error)}") from error


def _quantize(pipe: Any) -> None:
    from importlib import import_module

    from ..accel.denoiser import denoisers_of

    for _, transformer in denoisers_of(pipe):
        with quietly():
            torchao = import_module("torchao.quantization")  # optional
            torchao.quantize_(transformer, torchao.Int8WeightOnlyConfig())


def _compile(pipe: Any) -> None:
    from ..accel.denoiser import denoisers_of
    from ..accel.families import find_family

    for _, transformer in denoisers_of(pipe):
        for _, block in find_family(transformer).blocks(transformer):
            block.compile()


@contextmanager
def quietly() -> Iterator[None]:
    """Without the warnings that libraries have for the authors of programs."""
    import warnings

    names = ("diffusers", "transformers", "peft", "torchao")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
