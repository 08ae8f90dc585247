"""The work of `outpace generate`: a pipeline under methods, and batches of prompts that become files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from outpace.cli.making.order import Order, choose, words_of
from outpace.errors import InputError


class Making:
    """Does the jobs of an order: job 3 makes the files of batch 3. Close it, and the pipeline is plain again.

    Args:
        watched: show diffusers' progress bars.

    Raises: InputError, ConfigError, UnknownNameError for what the order asks wrongly.
    """

    def __init__(self, order: Order, *, watched: bool = False) -> None:
        import torch

        from outpace.accel import Profile, accelerate
        from outpace.cli.making.recipe import Recipe
        from outpace.cli.options.output import plan_files
        from outpace.cli.options.pipeline import inputs_of, setup_of
        from outpace.cli.options.pipeline import words_of as words_of_options
        from outpace.cli.options.workers import device_of_process
        from outpace.pipelines.inputs import suited
        from outpace.pipelines.load import call_arguments, load_pipeline, makes_clips, makes_clouds, read_prompts

        self.order, self.watched = order, watched
        settings = dict(order.settings)
        tuned = Profile.load(order.profile) if order.profile else None
        if tuned is not None:
            # As tuned, unless the command line says otherwise; the summary then says that nothing is promised.
            known = {"steps": tuned.steps, **{k: v for k, v in tuned.call.items() if k in settings}}
            settings = {k: known.get(k) if v is None else v for k, v in settings.items()}
        neither = order.plain or order.speedup is not None
        chosen, preset = ([], None) if tuned else choose(order.methods, order.preset, neither)
        dtype = getattr(torch, order.dtype) if order.dtype else None
        device = device_of_process(order.device)
        inputs, setup = inputs_of(order.options), setup_of(order.options)
        self.loaded = suited(
            load_pipeline(
                order.pipeline,
                dtype=dtype,
                device=device,
                progress=watched,
                variant=order.options.get("variant"),
                setup=setup,
            ),
            inputs,
        )
        asked = order.methods or order.speedup or order.preset or order.profile
        if not asked and self.loaded.pocket is not None and not self.loaded.pocket.forecasts:
            order = self.order = replace(order, plain=True)
        self.clips, self.clouds = makes_clips(self.loaded), makes_clouds(self.loaded)
        self.arguments = inputs.arguments(self.loaded, call_arguments(self.loaded, **settings))
        self.samples = read_prompts(self.loaded, [text for text, _ in order.wanted])
        self.files = plan_files(order.out, order.format, order.wanted, clip=self.clips)
        self.tuned = tuned is not None
        self.run = (
            None
            if order.plain
            else accelerate(self.loaded.pipe, *chosen, speedup=order.speedup, preset=preset, profile=tuned)
        )
        usual = {"enlarge": 1, "fps": 8.0}
        saved = {"enlarge": order.enlarge, **({"fps": order.fps} if self.clips else {})}
        self.recipe = Recipe(
            pipeline=order.pipeline,
            acceleration=("--profile", order.profile) if order.profile else words_of(order, preset),
            settings={k: v for k, v in {**settings, "dtype": order.dtype}.items() if v is not None}
            | {k: v for k, v in saved.items() if v != usual[k]},
            words=tuple(words_of_options(order.options)),
            inputs=inputs.digests(),
            arguments=self.arguments,
            device=str(self.loaded.pipe.device),
            methods=self.run.trace.as_dict()["methods"] if self.run else [],
        )

    def part(self, number: int) -> slice:
        """Batch `number`. A fixed slice, so that what is continued or shared makes the very batches of one go."""
        return slice(number * self.order.batch, (number + 1) * self.order.batch)

    def jobs(self, kept: Iterable[Path] = ()) -> list[int]:
        """The batches with a file that is not among `kept`."""
        there = set(kept)
        count = -(-len(self.files) // self.order.batch)
        return [number for number in range(count) if not there.issuperset(self.files[self.part(number)])]

    def kept(self) -> list[Path]:
        """The files that are there already, made by this very recipe.

        Raises: InputError for a file of that name with another recipe, or none.
        """
        from outpace.pipelines.media import read_recipe

        found = [(path, pair) for path, pair in zip(self.files, self.order.wanted, strict=True) if path.exists()]
        for path, pair in found:
            recipe: dict[str, Any] = {}
            with suppress(InputError):
                recipe = read_recipe(path)
            if others := differences(recipe, json.loads(json.dumps(self.recipe.of(*pair)))):
                raise InputError(
                    f"'{path}' is there and was made otherwise ({', '.join(others)}); "
                    "make all again with --overwrite, or choose another --out"
                )
        return [path for path, _ in found]

    def __call__(self, number: int) -> dict[str, Any] | None:
        """Make one batch; returns what the denoiser did for it, or None where nothing is accelerated."""
        from outpace.pipelines.load import call_pipeline, media_of
        from outpace.pipelines.media import enlarge, save_media

        part, order = self.part(number), self.order
        wanted = order.wanted[part]
        self.label_progress(part.start, len(wanted))
        before = self.run.trace.made if self.run else 0
        made = call_pipeline(self.loaded, self.samples[part], [seed for _, seed in wanted], self.arguments)
        if self.clouds:  # before the pictures, which carry the recipe and say that all is there
            from outpace.pipelines.dit3d import write_ply

            for points, path in zip(made.points, self.files[part], strict=True):
                write_ply(points, path.with_suffix(".ply"))
        for media, (text, seed), path in zip(media_of(self.loaded, made), wanted, self.files[part], strict=True):
            save_media(enlarge(media, order.enlarge), path, self.recipe.of(text, seed), frames_per_second=order.fps)
        return (
            replace(self.run.trace, calls=self.run.trace.since(before), before=Counter()).totals() if self.run else None
        )

    def label_progress(self, first: int, size: int) -> None:
        count = len(self.files)
        label = f"{first + 1}-{first + size} of {count}" if size > 1 else f"{first + 1} of {count}"
        self.loaded.pipe.set_progress_bar_config(desc=label, disable=not self.watched)

    def close(self) -> None:
        if self.run:
            self.run.restore()


def differences(found: dict[str, Any], recipe: dict[str, Any]) -> list[str]:
    """Where two recipes differ. Which of several like devices made a picture does not count."""
    if not found:
        return ["it carries no recipe"]
    alike = {"device": lambda name: str(name).partition(":")[0]}
    return [
        key
        for key in {**recipe, **found}
        if alike.get(key, lambda value: value)(found.get(key)) != alike.get(key, lambda value: value)(recipe.get(key))
    ]


def summed(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """What the denoisers of several processes did, from what each batch told."""
    keys = ("calls", "samples", "computed", "forecast", "blocks", "blocks_plain")
    totals: dict[str, Any] = {key: sum(part[key] for part in parts) for key in keys}
    work = sum(part["blocks_plain"] / part["predicted_speedup"] for part in parts if part["predicted_speedup"])
    return totals | {"predicted_speedup": totals["blocks_plain"] / work if work else None}
