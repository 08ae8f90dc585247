"""Where the trained pockets lie, how they are loaded, and how a newly trained one is written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import InputError
from ..folder import check_parts, told_as_input
from ..parts import converted_parts, pipeline_class
from ..quiet import quiet_loading
from .pocket import POCKETS

if TYPE_CHECKING:
    import torch

WEIGHTS = Path(__file__).parent / "weights"
LARGEST_BYTES = 12_000_000
"""What one shipped pocket may take, unless it is named in LARGER_BYTES."""
LARGER_BYTES = {"photo": 40_000_000}
"""The hard one is as wide as real layers need to be to show on a clock."""


def pocket_path(name: str) -> Path:
    """The folder of the shipped pocket `name`: an ordinary diffusers directory, `from_pretrained` reads it too.

    Raises: UnknownNameError for no pocket of ours; InputError where its weights are not installed.
    """
    POCKETS[name]
    folder = WEIGHTS / name
    if not (folder / "model_index.json").is_file():
        raise InputError(
            f"the weights of the pocket '{name}' are not installed ({folder} has no model_index.json); "
            f"reinstall outpace, or make them with: outpace pocket train {name} --out FOLDER"
        )
    return folder


def load_pocket(name: str | Path, torch_dtype: torch.dtype | None = None) -> Any:
    """A trained pocket on the CPU, as the diffusers pipeline that its model_index.json names.

    Args:
        name: a pocket ("flux"), or a folder that `train_pocket` or `save_pipeline` wrote.
        torch_dtype: of the weights, float32 by default; they are stored in bfloat16.

    Raises: UnknownNameError, InputError: where there is no such pocket or nothing to load.

    >>> load_pocket("dit")([3], guidance_scale=4.0, num_inference_steps=28).images[0]  # doctest: +SKIP
    """
    folder = Path(name).expanduser()
    # A folder is meant where one is written as a path: one that happens to be called "flux" must not hide a pocket.
    if not (isinstance(name, Path) or "/" in name or folder.is_absolute()) or not folder.is_dir():
        folder = pocket_path(str(name))
    elif not (folder / "model_index.json").is_file():
        raise InputError(
            f"the folder '{folder}' holds no pipeline: it has no model_index.json (is it trained to the end?)"
        )
    import torch

    torch_dtype = torch_dtype or torch.float32
    with quiet_loading(), told_as_input(str(folder), folder):
        check_parts(folder)
        parts = converted_parts(folder, torch_dtype=torch_dtype)
        loader = pipeline_class(folder)
        pipe = loader.from_pretrained(str(folder), torch_dtype=torch_dtype, local_files_only=True, **parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def forget_origin(folder: Path) -> None:
    """Take out of a saved pipeline where its parts were loaded from, and let anyone read its weights."""
    for file in folder.rglob("*.json"):
        held = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(held, dict) and held.pop("_name_or_path", None) is not None:
            file.write_text(json.dumps(held, indent=2) + "\n", encoding="utf-8")
    for file in folder.rglob("*.safetensors"):
        file.chmod(0o644)


def save_pipeline(pipe: Any, folder: Path) -> None:
    """Write `pipe` into `folder` in bfloat16, without a trace of where it was made.

    Other files in `folder` stay. It can be loaded only once everything is written: model_index.json comes last.
    """
    import torch

    part = folder / ".part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    with quiet_loading():
        pipe.to(dtype=torch.bfloat16).save_pretrained(part)
    forget_origin(part)
    index = folder / "model_index.json"
    index.unlink(missing_ok=True)
    for made in sorted(part.iterdir()):
        if made.name != index.name:
            shutil.rmtree(folder / made.name, ignore_errors=True)
            made.replace(folder / made.name)
    (part / index.name).replace(index)
    part.rmdir()
