"""What diffusers does not load of a pipeline's folder unasked: pipelines of our own, and converted transformers."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from .folder import class_or_refusal, read_index

OWN = {
    "DiT3DPipeline": "dit3d",
    "LadinePipeline": "ladine",
    "LegoPipeline": "lego",
    "VDTPipeline": "vdt",
}
"""Pipeline classes of our own, and the package beside this file that each comes from."""


def pipeline_class(folder: Path) -> Any:
    """The class that loads the pipeline in `folder`: one of our own, else diffusers', which finds out by itself.

    diffusers loads parts of classes that were imported already, so importing the pipeline is all that its parts need.
    """
    name = read_index(folder)["_class_name"]
    if name in OWN:
        return getattr(import_module(f"..{OWN[name]}", __name__), name)
    import diffusers

    class_or_refusal(folder, diffusers, name)
    return diffusers.DiffusionPipeline


def converted_parts(folder: Path, **options: Any) -> dict[str, Any]:
    """Parts of the pipeline in `folder` that were converted, loaded; from_pretrained takes them as they are.

    diffusers imports no module because a folder names it, and passes over weights that are missing. This does neither.

    Args:
        options: for the from_pretrained of every part, such as torch_dtype.

    Raises: InputError where a part was not written to the end.
    """
    index = read_index(folder)
    named = {name: entry[0] for name, entry in index.items() if isinstance(entry, list) and len(entry) == 2}
    if not any(isinstance(library, str) and library.startswith("outpace.") for library in named.values()):
        return {}
    from ..accel.experts import converted, load_transformer

    return {
        name: load_transformer(folder / name, **options)
        for name, library in named.items()
        if library == converted.__name__
    }
