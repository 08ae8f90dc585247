"""MODEL on the command line of `estimate` and `flops`: a published model, a pocket, or a folder."""

from __future__ import annotations

from pathlib import Path


def find_source(model: str, **asked: int | None) -> tuple[str, dict[str, int]]:
    """What `estimate` and `flops` are given for MODEL, and the size and steps that are asked for, or else what a
    pocket's recipe knows of them.

    Raises: UnknownNameError for a name that is no published model, pocket or folder.
    """
    from outpace.accel.estimate import MODELS
    from outpace.errors import UnknownNameError
    from outpace.files import is_there
    from outpace.pipelines.pocket.recipes import POCKETS
    from outpace.registry import suggestion

    said = {word: value for word, value in asked.items() if value is not None}
    folder = folder_of(model)
    if folder is not None:
        pocket = POCKETS[model]
        words = {"height": "height", "width": "width", "num_frames": "frames"}
        given = {word: pocket.call[key] for key, word in words.items() if key in pocket.call}
        return str(folder), {**given, "steps": pocket.steps, **said}
    if model not in MODELS and not is_there(model):
        raise UnknownNameError(f"no model '{model}'{suggestion(model, [*MODELS, *POCKETS])}")
    return model, said


def folder_of(model: str) -> Path | None:
    """Where the pocket MODEL lies, or None where it is no pocket. Raises: InputError where it is not installed."""
    from outpace.accel.estimate import MODELS
    from outpace.pipelines.pocket.recipes import POCKETS

    if model not in POCKETS or model in MODELS:
        return None
    from outpace.pipelines import pocket_path

    return pocket_path(model)
