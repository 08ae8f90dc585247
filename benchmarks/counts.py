"""Count every published model and every pocket by default, for `outpace flops NAME`: accel/estimate/counted.json.

make counts      again after a change of a model's entry, of how parts are told apart, or of diffusers' version
"""

from __future__ import annotations

import json
from contextlib import suppress
from importlib.metadata import version
from typing import Any

from outpace.accel.estimate import MODELS, SIGNATURES, flops
from outpace.accel.estimate.counted import FILE, described
from outpace.cli.options.model import find_source, folder_of
from outpace.errors import InputError
from outpace.files import write_text
from outpace.pipelines import pocket_path
from outpace.pipelines.pocket.recipes import POCKETS


def count(name: str) -> dict[str, Any]:
    """One entry of the file."""
    source, given = find_source(name)
    return {"of": described(name, folder_of(name)), "account": flops(source, **given).to_dict()}


def names() -> list[str]:
    """What is counted: every published model, and the pockets of classes that can be."""
    pockets = {}
    for name in POCKETS:
        with suppress(InputError):  # one that is not shipped
            pockets[name] = json.loads((pocket_path(name) / "model_index.json").read_text("utf-8"))
    known = [name for name, index in pockets.items() if index.get("transformer", ["", ""])[1] in SIGNATURES]
    return [*MODELS, *(name for name in known if name not in MODELS)]


if __name__ == "__main__":
    told = {"diffusers": version("diffusers"), "accounts": {name: count(name) for name in names()}}
    write_text(FILE, json.dumps(told, separators=(",", ":")) + "\n")
    print(f"{FILE}: {len(told['accounts'])} accounts")
