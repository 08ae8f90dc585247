"""`--also`: converted pipelines, other checkpoints and adapters that take part beside the pipeline."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from outpace.cli.contenders.bench import Also, Bench, weights_digest
from outpace.cli.contenders.converted import load_converted
from outpace.errors import InputError
from outpace.evaluation import Contender
from outpace.registry import suggestion

if TYPE_CHECKING:
    from outpace.pipelines.load import Loaded

NUMBERS = {"steps": int, "guidance": float}
"""What may be said of one behind its name, and how it is read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What one `--also` says."""

    place: str
    """A folder, a pocket, a hub id, or a file of an adapter with its scale."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Of its calls, where they differ from the pipeline's: NUMBERS."""

    @property
    def adapter(self) -> bool:
        """Whether it is an adapter that the pipeline itself is given."""
        path = Path(self.place.rpartition(":")[0] or self.place)
        return any(p.suffix == ".safetensors" for p in (path, Path(self.place)))


def read_also(text: str) -> Told:
    """PLACE, or PLACE:KEY=VALUE,...

    >>> read_also("out/turbo:steps=4,guidance=1")
    Told(place='out/turbo', settings={'steps': 4, 'guidance': 1.0})

    Raises: InputError for a key that there is not, or a value that is no such number.
    """
    place, _, rest = text.rpartition(":")
    if "=" not in rest or not place:
        return Told(place=text)
    settings: dict[str, Any] = {}
    for word in rest.split(","):
        key, _, value = (part.strip() for part in word.partition("="))
        if key not in NUMBERS:
            raise InputError(f"--also {text}: no '{key}'{suggestion(key, list(NUMBERS))}")
        try:
            settings[key] = NUMBERS[key](value)
        except ValueError:
            settings[key] = -1
        if not (1 if key == "steps" else 0) <= settings[key] <= 10_000:
            raise InputError(f"--also {text}: {key}={value} is no number of {key}; write it as in {key}=4")
    return Told(place=place, settings=settings)


def load_also(dense: Bench, texts: Sequence[str], pipeline: str) -> None:
    """Load what takes part beside `dense` into its `converted` and `others`.

    Args:
        texts: each as `read_also` reads it.
        pipeline: where `dense` came from; an adapter is put on a copy of it.

    Raises: InputError for a folder without a pipeline, one whose prompts are of another kind, or a name given twice.
    """
    from outpace.accel.experts import conversion_of
    from outpace.cli.options.pipeline import setup_of
    from outpace.pipelines.load import load_pipeline

    converted: dict[str, Loaded] = {}
    others: dict[str, Also] = {}
    own = dense.loaded.pipe
    for text in texts:
        told = read_also(text)
        name = re.sub(r"[^A-Za-z0-9@.+_-]+", "-", Path(told.place).name)
        if name in converted or name in others:
            raise InputError(f"--also: two are called '{name}'; rename one of them")
        loaded = load_pipeline(
            pipeline if told.adapter else told.place,
            dtype=own.transformer.dtype,
            device=str(own.device),
            progress=False,
            setup=setup_of({"lora": (told.place,)}) if told.adapter else None,
        )
        loaded.pipe.set_progress_bar_config(disable=True)
        if conversion_of(loaded.pipe.transformer) is not None:
            if told.settings:
                raise InputError(f"--also {text}: a converted pipeline is called as {pipeline} is; leave :... out")
            converted[name] = loaded
            continue
        others[name] = another(dense, name, loaded, told)
    dense.converted = load_converted(dense, converted)
    dense.others = list(others.values())


def another(dense: Bench, name: str, loaded: Loaded, told: Told) -> Also:
    """A pipeline with other weights, called with its own steps and guidance.

    Raises: InputError where it takes other prompts, or has no setting that was told.
    """
    from outpace.pipelines.load import argument_of, call_arguments

    if loaded.prompt_argument != dense.loaded.prompt_argument:
        raise InputError(
            f"--also {told.place}: it is asked by {loaded.prompt_argument}, and {dense.loaded.source.name} by "
            f"{dense.loaded.prompt_argument}; prompts of one say nothing to the other"
        )
    plain, asked = call_arguments(loaded), call_arguments(loaded, **told.settings)
    changed = {key: value for key, value in asked.items() if key not in plain or plain[key] != value}
    named = {argument_of(loaded.pipe, key): value for key, value in told.settings.items()}
    arguments = {**dense.arguments, **changed, **named}
    bench = Bench(loaded=loaded, arguments=arguments, yardstick=dense.yardstick)
    return Also(
        name=name,
        bench=bench,
        settings={"weights": weights_digest(loaded.pipe), **told.settings},
    )


def other_contenders(dense: Bench) -> list[Contender]:
    """Each by itself. Its blocks count by the FLOPs of its calls beside those of the pipeline's."""
    return [other_contender(dense, one) for one in dense.others]


def other_contender(dense: Bench, one: Also) -> Contender:
    """One of them."""
    from dataclasses import replace

    bench = one.bench

    def generate(requests: list[Any]) -> list[Any]:
        worth = bench.call_flops() / bench.blocks / (dense.call_flops() / dense.blocks)
        return [replace(r, blocks=r.blocks * worth, latents=None) for r in bench.answer(requests, bench.steps)]

    return Contender(
        name=one.name,
        label=f"{one.name}, {bench.steps} steps",
        kind="checkpoint",
        curve=one.name,
        steps=bench.steps,
        settings=one.settings,
        generate=generate,
        timed=lambda requests: bench.run(requests, bench.steps),
        shown=True,
    )
