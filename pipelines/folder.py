"""A pipeline's folder on disk: what it says of itself, and what is wrong with it where it cannot be loaded.

diffusers, transformers, tokenizers and safetensors each raise errors of their own at a damaged file, some only when the
pipeline is called. Here every one of them becomes a line that names the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import InputError, OutpaceError
from ..files import is_there, read_bytes
from ..registry import suggestion

LORA = "pytorch_lora_weights.safetensors"

_NOT_A_VOCABULARY = {"tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "config.json"}
_CONFIGS = ("config.json", "scheduler_config.json", "preprocessor_config.json", "tokenizer_config.json")


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises: InputError, naming it, where there is none."""
    try:
        found = json.loads(read_bytes(path).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"cannot read '{path}': it is damaged, or no JSON ({error})") from error
    if not isinstance(found, dict):
        raise InputError(f"cannot read '{path}': it holds no JSON object")
    return found


def read_index(folder: Path) -> dict[str, Any]:
    """The parts of the pipeline in `folder`. Raises: InputError where its index is damaged or names no class."""
    index = read_object(folder / "model_index.json")
    if not isinstance(index.get("_class_name"), str):
        raise InputError(f"'{folder}/model_index.json' names no pipeline class; is it a diffusers pipeline?")
    return index


def read_card(folder: Path) -> dict[str, Any] | None:
    """What training or conversion wrote about the pipeline; None where nothing is there.

    Raises: InputError where it is damaged: the size and the words that the pipeline knows would silently be others.
    """
    path = folder / "card.json"
    if not path.exists():
        return None
    try:
        return read_object(path)
    except InputError as error:
        raise InputError(f"{error}; it says what the pipeline was made from: restore it, or remove it") from error


def notes_on(folder: Path) -> tuple[str, ...]:
    """What is in a folder and is not loaded, or missing and not needed, in words."""
    found = []
    made = [entry[0] for entry in read_index(folder).values() if isinstance(entry, list) and entry]
    if read_card(folder) is None and any(str(library).startswith("outpace.") for library in made):
        found.append(
            f"'{folder}' has no card.json, which says what it was made from: its size and its words are not known"
        )
    if (folder / LORA).is_file():
        found.append(f"'{folder / LORA}' is not loaded by itself: give --lora '{folder / LORA}'")
    return tuple(found)


def check_parts(folder: Path) -> None:
    """Raises: InputError where a part that the index names is not there, or a configuration is damaged."""
    for name, kind in _parts(read_index(folder)):
        part = folder / name
        if not part.is_dir():
            raise InputError(f"'{folder}' is not whole: its {name} is missing ({part} is no folder)")
        files = {file.name for file in part.iterdir() if file.is_file()}
        for config in _CONFIGS:
            if config in files:
                read_object(part / config)
        if "Tokenizer" in kind and not files - _NOT_A_VOCABULARY:
            raise InputError(f"'{folder}' is not whole: {part} holds no vocabulary, so no prompt can be read")
        if "Scheduler" in kind and "scheduler_config.json" not in files:
            raise InputError(f"'{folder}' is not whole: {part / 'scheduler_config.json'} is missing")


@contextmanager
def told_as_input(name: str, folder: Path | None, variant: str | None = None) -> Iterator[None]:
    """While a pipeline is loaded: whatever is raised becomes one line that names what is damaged.

    Args:
        name: as the user wrote it.
        folder: where it lies; None for one of the hub, or shipped.
        variant: of its weights, where one was asked for.

    Raises: InputError.
    """
    try:
        yield
    except (OutpaceError, MemoryError):
        raise
    except Exception as error:  # diffusers, transformers, tokenizers, safetensors and torch have their own
        if "memory" in str(error).lower() and "allocate" in str(error).lower():
            raise
        if folder is None:
            raise InputError(
                f"cannot load '{name}': the hub does not have it, or is out of reach and it is not in the cache "
                "(--debug shows the hub's answer; 'outpace pocket list' shows what needs no network)"
            ) from error
        why = _damage(folder) or _variants(folder, variant)
        if why is None:
            why = f"{type(error).__name__}: {(str(error).strip() or 'no reason given').splitlines()[0][:300]}"
        raise InputError(f"cannot load a pipeline from the folder '{name}': {why}") from error


def class_or_refusal(folder: Path, home: Any, name: str) -> Any:
    """The class `name` of `home`, diffusers. Raises: InputError where it has none of the kind."""
    found = getattr(home, name, None)
    if found is None:
        known = [entry for entry in dir(home) if entry.endswith("Pipeline")]
        near = suggestion(name, known).split(" (have")[0]
        raise InputError(
            f"'{folder}/model_index.json' names the pipeline class '{name}', which diffusers {home.__version__} does "
            f"not have{near}"
        )
    return found


def _parts(index: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and classes of the parts that the index says are there."""
    for name, entry in index.items():
        if isinstance(entry, list) and len(entry) == 2 and all(isinstance(word, str) for word in entry):
            yield name, entry[1]


def _damage(folder: Path) -> str | None:
    """The first file of a pipeline's parts that cannot be read to its end, in words; None where all can."""
    from safetensors import SafetensorError, safe_open

    for name, _ in _parts(read_index(folder)):
        for path in sorted((folder / name).glob("*")):
            try:
                if path.suffix == ".json":
                    json.loads(read_bytes(path).decode("utf-8-sig"))
                if path.suffix == ".safetensors":
                    with safe_open(path, framework="np") as held:
                        held.keys()
            except (OutpaceError, ValueError, RecursionError, OSError, SafetensorError) as error:
                return f"'{path}' is damaged ({str(error).splitlines()[0][:200]})"
    return None


def _variants(folder: Path, asked: str | None) -> str | None:
    """Which variants of weights there are, where the one that was asked for is not among them."""
    files = [path.name.split(".") for path in folder.glob("*/*.safetensors")]
    found = sorted({words[-2] for words in files if len(words) > 2 and "-of-" not in words[-2]})
    if asked and asked not in found:
        return f"it has no weights of the variant '{asked}' (has: {', '.join(found) or 'none, leave --variant out'})"
    if found and not asked and is_there(folder):
        return f"its weights are of the variant {', '.join(found)}: add --variant {found[0]}"
    return None
