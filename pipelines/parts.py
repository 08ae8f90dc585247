"""The converted transformers of a pipeline's folder, which diffusers does not load unasked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def converted_parts(folder: Path, **options: Any) -> dict[str, Any]:
    """Parts of the pipeline in `folder` that were converted, loaded; from_pretrained takes them as they are.

    diffusers imports no module because a folder names it, and passes over weights that are missing. This does neither.

    Args:
        options: for the from_pretrained of every part, such as torch_dtype.

    Raises: InputError where a part was not written to the end.
    """
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    named = {name: entry[0] for name, entry in index.items() if isinstance(entry, list) and len(entry) == 2}
    if not any(isinstance(library, str) and library.startswith("outpace.") for library in named.values()):
        return {}
    from ..accel.experts import converted, load_transformer

    return {
        name: load_transformer(folder / name, **options)
        for name, library in named.items()
        if library == converted.__name__
    }
