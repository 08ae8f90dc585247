"""Measure how well a pocket obeys held-out prompts, and write that on its model card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError, InputError
from ...files import write_text
from ..folder import read_card

if TYPE_CHECKING:
    from .pocket import Pocket

FIRST_SEED = 50_000
"""Noise that no training step has drawn and no setting is tuned on."""


def check_pocket(
    name: str,
    n: int = 32,
    steps: int | None = None,
    *,
    folder: str | Path | None = None,
    batch: int = 16,
    progress: bool = False,
) -> dict[str, Any]:
    """Generate `n` held-out prompts with the plain pipeline and read off the result how much of them was obeyed.

    Args:
        steps: denoising steps; None takes the pocket's.
        folder: a pipeline made by `train_pocket`; None takes the shipped one.

    Returns: {"accuracy": mean of each check, "n", "steps", "split", "call", "first_seed"}.

    Raises: UnknownNameError, InputError: where there is no such pocket; ConfigError for less than one prompt.
    """
    import numpy as np
    import torch

    from ..load import refused
    from .sisters import trained
    from .store import load_pocket

    pocket = trained(name)
    if n < 1:
        raise ConfigError(f"{n} prompts measure nothing; ask for at least 1")
    count = pocket.steps if steps is None else steps
    if folder is not None:
        _check_folder(pocket.name, Path(folder))
    pipe = load_pocket(name if folder is None else Path(folder))
    prompts = pocket.prompts(n, "held_out")
    hits: list[dict[str, float]] = []
    for start in range(0, n, batch):
        part = prompts[start : start + batch]
        pipe.set_progress_bar_config(desc=f"{name} {start + 1}-{start + len(part)} of {n}", disable=not progress)
        seeds = [FIRST_SEED + start + index for index in range(len(part))]
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        with refused(pipe):
            made = pipe(
                **{pocket.prompt_argument: part, **(pocket.given(part, seeds) if pocket.given is not None else {})},
                generator=generators,
                num_inference_steps=count,
                output_type="np",
                **pocket.call,
            )
        media = made.frames if pocket.kind == "video" else made.images
        hits += pocket.check([np.asarray(sample, dtype=np.float32) for sample in media], part)
    return {
        "accuracy": {key: round(float(np.mean([hit[key] for hit in hits])), 4) for key in hits[0]},
        "n": n,
        "steps": count,
        "split": "held_out",
        "call": dict(pocket.call),
        "first_seed": FIRST_SEED,
    }


def _check_folder(name: str, folder: Path) -> None:
    """Raises: InputError where `folder` says that it was made from another pocket, or holds a converted pipeline."""
    if not (folder / "model_index.json").is_file():
        return
    card = read_card(folder) or {}
    if card.get("pocket", name) != name:
        raise InputError(f"'{folder}' was made from the pocket '{card['pocket']}'; check it as that one")
    if "conversion" in card or "distilled" in card:
        raise InputError(
            f"'{folder}' is a converted pipeline; what it costs is told by: outpace compare {name} --also {folder}"
        )


def write_card(folder: Path, check: dict[str, Any]) -> None:
    """Put the outcome of `check_pocket` into `folder/card.json` and write `folder/README.md` from what that file says.

    Raises: InputError where `folder` has no card.json, which training writes.
    """
    path = folder / "card.json"
    if not path.is_file():
        raise InputError(f"{folder} has no card.json; train the pocket with: outpace pocket train NAME --out {folder}")
    card = {**json.loads(path.read_text(encoding="utf-8")), "check": check}
    write_text(path, json.dumps(card, indent=1) + "\n")
    write_text(folder / "README.md", card_text(card, _parameters(folder)))


def card_text(card: dict[str, Any], parameters: dict[str, int]) -> str:
    """The model card in Markdown; every number in it comes from `card` and from the files."""
    from .sisters import is_sister, trained

    pocket = trained(card["pocket"])
    sister = is_sister(pocket.name)
    recipe = f"{pocket.name.removesuffix('-sister')} --sister" if sister else pocket.name
    training, check = card["training"], card["check"]
    parts = training["parts"]
    call = "".join(f"{key}={value!r}, " for key, value in check["call"].items())
    example = pocket.prompts(1, "held_out")[0]
    lines = [
        "---",
        "license: apache-2.0",
        "library_name: diffusers",
        "---",
        f"# outpace pocket `{pocket.name}`",
        "",
        f"Makes {pocket.summary}. A small but really trained diffusers pipeline for measuring caches and schedulers "
        "where no network and no large model is at hand; of no other use.",
        "",
        "```python",
        f"from outpace.pipelines import {'POCKETS, ' if pocket.given is not None else ''}load_pocket",
        "",
        'pipe = load_pocket("./FOLDER")' if sister else f'pipe = load_pocket("{pocket.name}")',
        "made = pipe(",
        _asked(pocket, example),
        f"    num_inference_steps={check['steps']},",
        *(f"    {key}={value!r}," for key, value in check["call"].items()),
        ")",
        "```",
        "",
        "## Accuracy",
        "",
        f"Share of what {check['n']} held-out prompts ask for that a checker reads off the result "
        f"({check['steps']} steps, {call}seeds from {check['first_seed']}, weights in bfloat16, computed in "
        "float32):",
        "",
        "| what | accuracy | bar |",
        "|---|---|---|",
        *(
            f"| {key} | {value:.3f} | {format(pocket.bar[key], '.2f') if key in pocket.bar else ''} |"
            for key, value in check["accuracy"].items()
        ),
        "",
        "## Parts",
        "",
        "| part | parameters |",
        "|---|---|",
        *(f"| {part} | {count:,} |" for part, count in parameters.items()),
        "",
        "## Training",
        "",
        f"Data: {pocket.data}.",
        "",
        f"Recipe: `outpace pocket train {recipe} --out FOLDER`. Hardware: {training['hardware']}; "
        f"torch {training['torch']}, diffusers {training['diffusers']}.",
        "",
        "| part | steps | samples | CPU seconds | loss at the end |",
        "|---|---|---|---|---|",
        *(
            f"| {part} | {run['steps']:,} | {run['samples']:,} | {run['cpu_seconds']:.0f} | {run['loss']:.4f} |"
            for part, run in parts.items()
        ),
        "",
        *(
            f"{key.replace('_', ' ').capitalize()}: {_words(value)}.\n"
            for key, value in training.items()
            if key not in ("parts", "hardware", "torch", "diffusers", "processes", "budget")
        ),
        "Weights and code: Apache-2.0. The data keeps its own licence, named above.",
        "",
    ]
    return "\n".join(lines)


def _asked(pocket: Pocket, example: Any) -> str:
    prompts = f"[{json.dumps(example)}]"
    if pocket.given is None:
        return f"    {pocket.prompt_argument}={prompts},"
    return f'    **{{"{pocket.prompt_argument}": {prompts}}} | POCKETS["{pocket.name}"].given({prompts}, [0]),'


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key.replace('_', ' ')} {item}" for key, item in value.items())
    return str(value)


def _parameters(folder: Path) -> dict[str, int]:
    from safetensors import safe_open

    counts = {}
    for file in sorted(set(folder.glob("*/*.safetensors")) - set(folder.glob("checkpoints/*"))):
        with safe_open(file, framework="pt") as held:
            sizes = [held.get_slice(key).get_shape() for key in held.keys()]
        total = 0
        for shape in sizes:
            count = 1
            for side in shape:
                count *= side
            total += count
        counts[file.parent.name] = counts.get(file.parent.name, 0) + total
    return counts
