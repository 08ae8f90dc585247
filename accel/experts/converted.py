"""The classes of converted transformers: Converted<class of diffusers>, made when they are first asked for.

A pipeline's model_index.json names this module and such a class, so diffusers loads a converted pipeline wherever this
module is imported. What was done to the transformer stands in its config as `conversion`.
"""

from __future__ import annotations

import functools
import inspect
import shutil
from pathlib import Path
from typing import Any

from diffusers import ModelMixin as ModelMixin  # diffusers looks here for what says how these classes are loaded
from torch import nn

from ...errors import UnsupportedModelError
from .apply import apply_conversion
from .settings import Conversion

PREFIX = "Converted"

_WEIGHTS, _ENDINGS = "diffusion_pytorch_model", (".safetensors", ".safetensors.index.json", ".bin")


class ConvertedMixin:
    """What every converted transformer has beside its diffusers class."""

    def save_pretrained(self, save_directory: Any, **options: Any) -> None:
        """As diffusers does, except that a reader finds the old model, the new one, or none: never a part."""
        folder = Path(save_directory)
        part = folder / ".part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        super().save_pretrained(part, **options)  # pyright: ignore[reportAttributeAccessIssue]
        made = {file.name for file in part.iterdir()}
        (folder / "config.json").unlink(missing_ok=True)
        if not options.get("variant"):  # files of other variants stay
            for old in (*folder.glob(f"{_WEIGHTS}-*"), *(folder / f"{_WEIGHTS}{end}" for end in _ENDINGS)):
                old.unlink(missing_ok=True)
        for name in [*sorted(made - {"config.json"}), "config.json"]:
            (part / name).replace(folder / name)
        part.rmdir()


@functools.cache
def converted_class(cls: type[nn.Module]) -> type[Any]:
    """The class of converted transformers of `cls`, itself a subclass of it.

    Raises: UnsupportedModelError where `cls` is none of diffusers' transformers, or converted already.
    """
    import diffusers
    from diffusers.configuration_utils import register_to_config

    if issubclass(cls, ConvertedMixin):
        raise UnsupportedModelError(f"{cls.__name__} is converted already; start from the dense transformer")
    if getattr(diffusers, cls.__name__, None) is not cls:
        raise UnsupportedModelError(f"{cls.__name__} is no class of diffusers; a saved copy could not be loaded")
    plain: Any = inspect.unwrap(cls.__init__)

    def init(self: Any, *args: Any, conversion: dict[str, Any] | None = None, **settings: Any) -> None:
        plain(self, *args, **settings)
        if conversion is not None:
            apply_conversion(self, Conversion.from_dict(dict(conversion)))

    parameters = inspect.signature(plain).parameters
    extra = inspect.Parameter("conversion", inspect.Parameter.KEYWORD_ONLY, default=None, annotation="dict | None")
    init.__signature__ = inspect.Signature([*parameters.values(), extra])  # pyright: ignore[reportFunctionMemberAccess]
    exact = [*(getattr(cls, "_keep_in_fp32_modules", None) or []), "router", "block_routers"]
    return type(
        f"{PREFIX}{cls.__name__}",
        (ConvertedMixin, cls),
        {
            "__init__": register_to_config(init),
            "__module__": __name__,
            "__doc__": f"A {cls.__name__} whose layers were converted as its config's `conversion` says.",
            "_keep_in_fp32_modules": exact,
        },
    )


def __getattr__(name: str) -> Any:
    if name.startswith(PREFIX):
        import diffusers

        cls = getattr(diffusers, name.removeprefix(PREFIX), None)
        if isinstance(cls, type) and issubclass(cls, nn.Module):
            return converted_class(cls)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
