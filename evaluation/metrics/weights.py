"""Whether what a metric needs lies on this machine: packages and weight files. Looks only; never fetches anything."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path


def needs(packages: Sequence[str], files: Callable[[], Sequence[Path]]) -> Callable[[], str | None]:
    """For `Metric.missing`: what is not here, in words, or None.

    Args:
        packages: import names, in the order they are asked for.
        files: gives the paths that must exist; called at the time of asking, so that settings of caches count.
    """

    def missing() -> str | None:
        absent = [name for name in packages if find_spec(name) is None]
        if absent:
            return f"not installed: {', '.join(absent)}"
        gone = [path for path in files() if not path.exists()]
        more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
        at_home = str(gone[0]).replace(str(Path.home()), "~", 1) if gone else ""  # results are shown to others
        return f"weights missing at {at_home}{more}" if gone else None

    return missing


def torch_checkpoint(name: str) -> Path:
    """Where torch keeps a downloaded checkpoint file."""
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints" / name


def hub_file(repository: str, name: str) -> Path:
    """A file of a repository in the Hugging Face cache; where it would lie, if it is not there."""
    from huggingface_hub import constants, try_to_load_from_cache

    found = try_to_load_from_cache(repository, name)
    if isinstance(found, str):
        return Path(found)
    return Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}" / "snapshots" / "*" / name


def cache_folder(variable: str, name: str) -> Path:
    """A library's own folder of weights: as its environment variable says, or ~/.cache/NAME."""
    return Path(os.environ.get(variable) or Path.home() / ".cache" / name)
