"""A transformer from the folder that save_pretrained wrote, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...errors import InputError, OutpaceError


def load_transformer(path: str | Path, **options: Any) -> Any:
    """The transformer in the folder `path`: a converted one, or any of diffusers.

    Args:
        path: a folder that its save_pretrained wrote, or that of a pipeline which has it.
        options: for from_pretrained, such as torch_dtype.

    Raises: InputError where the folder is missing, was not written to the end, or holds something else.

    >>> load_transformer("out/moe").to("cuda")  # doctest: +SKIP
    """
    import diffusers

    from . import converted

    folder = Path(path).expanduser()
    if (folder / "model_index.json").is_file():
        folder = folder / "transformer"
    name = _class_of(folder)
    home = converted if name.startswith(converted.PREFIX) else diffusers
    cls = getattr(home, name, None)
    if cls is None:
        raise InputError(f"{folder}/config.json names the class '{name}', which this diffusers does not have")
    try:
        model, told = cls.from_pretrained(str(folder), output_loading_info=True, local_files_only=True, **options)
    except OutpaceError:
        raise
    except Exception as error:  # torch, safetensors and diffusers each have their own for a damaged file
        raise InputError(f"cannot load the weights in {folder}: {str(error).splitlines()[0]}") from error
    for what, keys in (("are missing", told["missing_keys"]), ("do not belong there", told["unexpected_keys"])):
        if keys:
            some = f"{len(keys)} {what}, such as {sorted(keys)[0]}"
            raise InputError(f"the weights in {folder} are not those of its config.json: {some}")
    return model.eval()


def _class_of(folder: Path) -> str:
    file = folder / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"{folder} holds no transformer: it has no config.json, which is written last (was it saved to the end?)"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {file}: {error}") from error
    name = config.get("_class_name") if isinstance(config, dict) else None
    if not isinstance(name, str):
        raise InputError(f"{file} names no class; is it the config of a diffusers transformer?")
    return name
