"""A pipeline that makes batches: strangers' prompts, seeds and dials in one call, to each what it would have alone."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from outpace.errors import InputError
from outpace.serve.batches import OnStep
from outpace.serve.company import Ticks, pads_alike, token_counts
from outpace.serve.orders import About, Made, Order
from outpace.serve.pictures import digest, encode, opened, painted
from outpace.serve.tiers import tiers_of, worded

if TYPE_CHECKING:
    import numpy as np

    from outpace.accel import Method


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineSettings:
    """What an engine is made from: plain data that another process can read."""

    pipeline: str
    device: str = "auto"
    dtype: str | None = None
    profiles: tuple[tuple[str, str], ...] = ()
    """Tiers that a profile stands for: (tier, file)."""
    speedup: float | None = None
    """What medium means: so many times fewer blocks; None takes the preset's."""


class Engine:
    """One loaded pipeline under acceleration; makes a batch at a time.

    Raises: UnknownNameError, InputError, ConfigError: where the pipeline cannot be loaded or served.
    """

    def __init__(self, settings: EngineSettings) -> None:
        import torch

        from outpace.accel import accelerate
        from outpace.pipelines.editing import editor_of
        from outpace.pipelines.load import load_pipeline, makes_clips

        dtype = getattr(torch, settings.dtype) if settings.dtype else None
        self.settings = settings
        self.loaded = load_pipeline(settings.pipeline, dtype=dtype, device=settings.device, progress=False)
        if makes_clips(self.loaded):
            raise InputError(f"'{settings.pipeline}' makes clips; outpace serve answers with pictures")
        pipe = self.loaded.pipe
        forecasts = self.loaded.pocket is None or self.loaded.pocket.forecasts
        self.tiers = tiers_of(settings.profiles, settings.speedup) if forecasts else {}
        self.run = accelerate(pipe, self.tiers["exact"]) if forecasts else None
        self.editing = {name: found for name in ("image", "mask_image") if (found := editor_of(pipe, name)) is not None}
        self.alike = pads_alike(pipe)
        self.about = self._rehearse()

    def shape(self, order: Order) -> tuple[Any, ...]:
        """What orders must share to be made in one call. Raises: InputError for an order that cannot be made."""
        from outpace.pipelines.load import read_prompts

        read_prompts(self.loaded, [order.prompt])
        if order.speedup is None and order.tier not in self.about.tiers:
            raise InputError(f"no quality '{order.tier}'; this server has {', '.join(self.about.tiers)}")
        if order.source is not None:
            opened(order.source)
        if order.mask is not None:
            painted(order.mask)
        # Where prompts are padded to the longest of the batch, a stranger's words would move one's own picture.
        company = None if self.alike else token_counts(self.loaded.pipe, order.prompt)
        return (*order.shape(), company)

    def make(self, orders: list[Order], on_step: OnStep) -> list[Made]:
        """Make orders of one shape in one call.

        Raises: InputError where the pipeline refuses them, and whatever `on_step` raises.
        """
        methods = [self.method_of(order) for order in orders]
        if self.run is not None:
            self.run.trace.clear()
            self.run.assign([method for method in methods if method is not None])
        begin = time.perf_counter()
        try:
            media, arguments = self.call(orders, on_step)
            seconds = time.perf_counter() - begin
            timelines = [self.timeline(place, method) for place, method in enumerate(methods)]
        finally:
            if self.run is not None:
                self.run.reset()
        return [
            Made(
                picture=encode(picture, order.format, recipe),
                recipe=recipe,
                computed=timeline,
                batch=len(orders),
                seconds=seconds,
            )
            for order, picture, timeline, recipe in zip(
                orders, media, timelines, map(self.recipe, orders, methods, [arguments] * len(orders)), strict=True
            )
        ]

    def method_of(self, order: Order) -> Method | None:
        """The dial that an order asks for."""
        from outpace.accel.presets import dial

        return self.tiers.get(order.tier) if order.speedup is None else dial(order.speedup)

    def call(self, orders: list[Order], on_step: OnStep) -> tuple[list[np.ndarray], dict[str, Any]]:
        """The pictures, and the arguments that they share."""
        from outpace.pipelines.load import call_arguments, read_prompts, run_pipeline

        first, loaded = orders[0], self.loaded
        words = ("steps", "guidance", "height", "width")
        arguments = call_arguments(loaded, **{word: getattr(first, word) for word in words})
        given = {}
        if first.source is not None:
            loaded = replace(loaded, pipe=self.editing["image" if first.mask is None else "mask_image"])
            size = (arguments["width"], arguments["height"])
            given["image"] = [opened(order.source).convert("RGB").resize(size) for order in orders]
            given["strength"] = first.strength
            if first.mask is not None:
                given["mask_image"] = [painted(order.mask).resize(size) for order in orders]
            arguments["strength"] = first.strength
        loaded.pipe.progress_bar = partial(Ticks, on_step)
        prompts = read_prompts(loaded, [order.prompt for order in orders])
        media = run_pipeline(loaded, prompts, [order.seed for order in orders], {**arguments, **given})
        return media, arguments

    def timeline(self, place: int, method: Any) -> dict[str, Any]:
        """What was computed for one order of the batch that was made last, under its method."""
        if self.run is None:
            return {"share": 1.0, "steps": []}
        trace, probes = self.run.trace, method.policy().probes
        steps: dict[int, dict[str, Any]] = {}
        blocks = 0
        for call in trace.calls:
            done, reason = call.computed[place], call.reason[place]
            told = steps.setdefault(call.step, {"computed": False, "reason": reason})
            if done and not told["computed"]:
                told.update(computed=True, reason=reason)
            # A forecast whose first block was measured cost that block.
            measured = probes and call.error[place] is not None
            blocks += trace.blocks if done else int(measured)
        return {"share": round(blocks / max(1, trace.blocks * len(trace.calls)), 6), "steps": list(steps.values())}

    def recipe(self, order: Order, method: Method | None, arguments: dict[str, Any]) -> dict[str, Any]:
        """What makes an order again, elsewhere and alone."""
        from outpace.cli.making.recipe import Recipe
        from outpace.cli.options.method import spell_combination

        asked = {name: getattr(order, name) for name in ("steps", "guidance", "height", "width")}
        recipe = Recipe(
            pipeline=self.settings.pipeline,
            acceleration=("--method", spell_combination([method])) if method else ("--plain",),
            settings={name: value for name, value in asked.items() if value is not None},
            arguments=arguments,
            device=str(self.loaded.pipe.device),
            methods=[method.to_dict()] if method else [],
        )
        if order.source is None:
            return recipe.of(order.prompt, order.seed)
        whole = {"prompt": order.prompt, "seed": order.seed, "source": digest(order.source)}
        return {**recipe.shared(), **whole, **({"mask": digest(order.mask)} if order.mask else {})}

    def close(self) -> None:
        if self.run is not None:
            self.run.restore()

    def _rehearse(self) -> About:
        """Make one picture in few steps, which shows that it works, and how large it is."""
        from outpace.pipelines.load import ARGUMENTS, accepted_by, argument_of

        pipe, pocket = self.loaded.pipe, self.loaded.pocket
        takes = accepted_by(pipe)
        classes = self.loaded.prompt_argument == "class_labels"
        example = str(pocket.prompts(1, "train")[0]) if pocket else "0" if classes else "a red bicycle"
        self.about = About(
            pipeline=self.settings.pipeline,
            steps=self.loaded.steps,
            size=(0, 0),
            sized=ARGUMENTS["height"] in takes and ARGUMENTS["width"] in takes,
            multiple=2 * int(getattr(pipe, "vae_scale_factor", 1)),
            guided=argument_of(pipe, "guidance") in takes,
            tiers={name: worded(method) for name, method in self.tiers.items()} or {"exact": "plain"},
            edits="image" in self.editing,
            masks="mask_image" in self.editing,
            example=example,
        )
        order = Order(prompt=example, seed=0, tier="exact", steps=2)
        self.shape(order)
        (picture,), _ = self.call([order], lambda step, steps: None)
        return replace(self.about, size=(picture.shape[0], picture.shape[1]))
