"""MODEL on the command line of `estimate` and `flops`: a published model, a pocket, or a folder."""

from __future__ import annotations


def find_source(model: str) -> tuple[str, dict[str, int]]:
    """What `estimate` and `flops` are given for MODEL, and the size and steps that a pocket's recipe knows.

    Raises: UnknownNameError for a name that is no published model, pocket or folder.
    """
    from pathlib import Path

    from outpace.accel.estimate import MODELS
    from outpace.errors import UnknownNameError
    from outpace.pipelines.pocket.recipes import POCKETS
    from outpace.registry import suggestion

    if model in POCKETS and model not in MODELS:
        from outpace.pipelines import pocket_path

        pocket = POCKETS[model]
        words = {"height": "height", "width": "width", "num_frames": "frames"}
        given = {word: pocket.call[key] for key, word in words.items() if key in pocket.call}
        return str(pocket_path(model)), {**given, "steps": pocket.steps}
    if model not in MODELS and not Path(model).expanduser().exists():
        raise UnknownNameError(f"no model '{model}'{suggestion(model, [*MODELS, *POCKETS])}")
    return model, {}
