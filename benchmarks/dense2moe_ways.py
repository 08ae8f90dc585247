"""The ways of `benchmarks/dense2moe.py`: what each makes of a pocket before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from outpace.accel.experts import Conversion
    from outpace.pipelines.distill import TeacherCalls
    from outpace.pipelines.load import Loaded

WIDTH = 0.375
"""Share of a feed-forward layer's matrices that 1S12E2A uses, and that width pruning keeps."""
GROUPS = tuple((first, 3, 2) for first in range(4, 22, 3))
"""First block, size and active blocks of every group; a static choice drops as many of each group."""
TEXT_WEIGHT = 0.0
"""Of the tokens in a group's router: it goes by noise level, class and pooled text alone. On `dit`, routers that saw
tokens only drew level with the static choice, and groups of 4 of which 2 run stayed 1.4 times as far off: a block
learns from its own samples only."""
SAMPLED_STEPS = 20
"""Denoising steps of everything that is recorded, generated or judged."""
FITTED_CALLS = 24
"""Training calls that the weights of noise levels are fitted to."""
TRAIN_PROMPTS, HELD_PROMPTS = 96, 24
TRAIN_SEED, HELD_SEED = 100_000, 700_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How the students of one pocket are trained."""

    pipeline: str
    steps: int
    batch: int


PLANS = (Plan(pipeline="dit", steps=120, batch=32), Plan(pipeline="flux", steps=100, batch=16))


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """What is made of a pocket, and what it is compared with."""

    label: str
    layout: str | None = None
    """Of experts; None leaves feed-forward layers whole, or cuts them to WIDTH."""
    width: bool = False
    random: bool = False
    """Units are ordered at random; else by Taylor, at each noise level where the layout says N or they are spread."""
    spread: bool = False
    """Experts are as many as the layout says on average, over layers and noise levels."""
    fitted: bool = False
    """Experts, routers and weights of noise levels begin where the dense layer's calls say; else as in the paper."""
    groups: bool = False
    dropped: bool = False
    left_out: int = 0
    """Noise levels, each of which leaves blocks of the groups out, as many on average as a static choice drops; with
    stand-ins for them where it is fitted."""
    beside: tuple[str, ...] = ()
    """Ways that its error is divided by, seed by seed."""
    timed: str | None = None
    """A way with whose calls its own are timed in turns."""
    trained: bool = True
    """False: only asked before training."""


WAYS = {
    "paper": Way(label="MoE 1S12E2A, dealt in turn", layout="1S12E2A", trained=False),
    "moe": Way(label="MoE 1S12E2A", layout="1S12E2A", fitted=True, beside=("shared", "random", "taylor")),
    "shared": Way(label="shared expert only", layout="1S12E0A"),
    "random": Way(label="width, random", width=True, random=True),
    "taylor": Way(label="width, Taylor", width=True),
    "noise": Way(label="by noise 0S8E3A4N", layout="0S8E3A4N", beside=("taylor", "moe"), timed="taylor"),
    "weights": Way(label="by noise 0S8E3A4W", layout="0S8E3A4W", beside=("taylor", "noise"), timed="taylor"),
    "one": Way(label="width, Taylor, fitted (0S8E3A1W)", layout="0S8E3A1W", fitted=True, trained=False),
    "fitted": Way(
        label="by noise 0S8E3A4W, fitted",
        layout="0S8E3A4W",
        fitted=True,
        beside=("taylor", "weights"),
        timed="taylor",
    ),
    "layers": Way(label="spread over layers 0S16E6A1N", layout="0S16E6A1N", spread=True, trained=False),
    "units": Way(label="spread 0S16E6A4N", layout="0S16E6A4N", spread=True, beside=("taylor",), timed="taylor"),
    "unfitted": Way(
        label="spread 0S16E6A4W, not fitted", layout="0S16E6A4W", spread=True, beside=("taylor",), timed="taylor"
    ),
    "alike": Way(
        label="spread over layers 0S16E6A1W, fitted",
        layout="0S16E6A1W",
        spread=True,
        fitted=True,
        beside=("taylor",),
        timed="taylor",
    ),
    "spread": Way(
        label="spread 0S16E6A4W, fitted",
        layout="0S16E6A4W",
        spread=True,
        fitted=True,
        beside=("taylor", "alike", "fitted", "unfitted", "units"),
        timed="taylor",
    ),
    "mob": Way(label="mixture of blocks", groups=True, fitted=True, beside=("drop",)),
    "levels": Way(
        label="static depth, weights by noise 0S8E8A4W",
        layout="0S8E8A4W",
        dropped=True,
        beside=("drop",),
        timed="drop",
    ),
    "drop": Way(label="static depth", dropped=True),
    "chosen": Way(label="static depth, one block after the other", left_out=1, beside=("drop",), timed="drop"),
    "shallow": Way(label="blocks by noise, 4 levels", left_out=4, beside=("drop", "chosen", "mob"), timed="drop"),
    "both": Way(
        label="blocks by noise, 4 levels, weights by noise 0S8E8A4W",
        layout="0S8E8A4W",
        left_out=4,
        beside=("drop", "chosen", "shallow"),
        timed="drop",
    ),
    "static": Way(
        label="static depth, stand-ins fitted", left_out=1, fitted=True, beside=("drop", "chosen"), timed="drop"
    ),
    "blocks": Way(
        label="blocks by noise, 4 levels, stand-ins fitted",
        left_out=4,
        fitted=True,
        beside=("drop", "chosen", "mob"),
        timed="drop",
    ),
}
"""In the order of the tables. 0S8E3A4W: the units that width pruning keeps, with weights of their own at each of 4
noise levels. Spread 4N is a pruned model whose width changes with noise; 1W is the same at all noise levels."""


@dataclass(frozen=True, slots=True)
class Bench:
    """One pocket with its teacher's calls, for training and held out."""

    loaded: Loaded
    arguments: dict[str, Any]
    train: TeacherCalls
    held: TeacherCalls

    @property
    def teacher(self) -> Any:
        return self.loaded.pipe.transformer

    def some_calls(self, seed: int, count: int = 8, samples: int = 16) -> list[dict[str, Any]]:
        """Training calls at mixed noise levels."""
        import torch

        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randint(0, len(self.train), (count, samples), generator=generator)
        return [self.train.take(index)[0] for index in chosen]

    def even_calls(self, seed: int, count: int = 8, samples: int = 16, *, mixed: bool = True) -> list[dict[str, Any]]:
        """As many, evenly over noise levels, for what levels cost is weighed by how many samples they hold; or else one
        call after the other from clean to noisy."""
        import torch

        ordered = self.train.noise_levels().argsort(stable=True)
        generator = torch.Generator().manual_seed(seed)
        strata = torch.arange(count * samples) * len(ordered) // (count * samples)
        within = torch.randint(0, len(ordered) // (count * samples), (count * samples,), generator=generator)
        chosen = ordered[strata + within]
        if mixed:
            chosen = chosen[torch.randperm(count * samples, generator=generator)]
        return [self.train.take(index)[0] for index in chosen.split(samples)]


def prepared(plan: Plan, folder: Path) -> Bench:
    """The pocket, and what its teacher says: recorded once."""
    from outpace.pipelines.distill import record_teacher
    from outpace.pipelines.load import call_arguments, load_pipeline

    loaded = load_pipeline(plan.pipeline, device="cpu", progress=False)
    loaded.pipe.set_progress_bar_config(disable=True)
    arguments = call_arguments(loaded, steps=SAMPLED_STEPS)

    def calls(count: int, split: str, seed: int) -> TeacherCalls:
        prompts = loaded.pocket.prompts(count, split)
        return record_teacher(loaded, prompts, arguments, seed=seed, folder=folder, progress=False)

    return Bench(
        loaded, arguments, calls(TRAIN_PROMPTS, "train", TRAIN_SEED), calls(HELD_PROMPTS, "held_out", HELD_SEED)
    )


def flops_of(loaded: Loaded, conversion: Conversion) -> float:
    """FLOPs of a call of a pocket as it is really called, its few tokens of text included, beside the dense one's."""
    from outpace.accel.experts import count
    from outpace.pipelines.load import call_arguments

    words = {"height": "height", "width": "width", "max_sequence_length": "text_tokens"}
    asked = call_arguments(loaded)
    told = count(loaded.pipe, conversion, **{word: asked[name] for name, word in words.items() if name in asked})
    return told.flops / told.dense_flops


def student_of(name: str, bench: Bench, seed: int) -> tuple[Any, Conversion]:
    """An untrained student."""
    import torch

    from outpace.accel.experts import (
        BlockGroup,
        Conversion,
        Experts,
        Layout,
        block_effects,
        choose_blocks,
        convert,
        level_borders,
        level_importance,
        output_change,
        random_importance,
        spread_experts,
        start_blocks,
        start_experts,
        start_groups,
        start_levels,
        taylor_importance,
    )

    way, teacher, calls = WAYS[name], bench.teacher, bench.some_calls(seed)
    layout = None if way.layout is None else Layout.parse(way.layout)
    settings: dict[str, Any] = {"width": WIDTH if way.width else None}
    scores: Any = None
    if layout is not None:
        settings["experts"] = Experts(layout=str(layout), scaling="none" if layout.levels else "one")
    if way.random:
        scores = random_importance(teacher, seed)
    elif layout is not None and (way.spread or (layout.levels and not layout.weights)):
        calls = bench.even_calls(seed) if way.spread else calls
        found = level_importance(teacher, calls, layout.levels, seed=seed)
        settings["borders"], scores = found.borders, found.scores
        if way.spread:
            settings["spread"] = spread_experts(teacher, found, str(layout))
    elif layout is not None or way.width:
        generator = torch.Generator().manual_seed(seed)
        scores = taylor_importance(teacher, calls, lambda model, call: output_change(model, call, generator))
        if layout is not None and layout.levels:
            settings["borders"] = level_borders(calls, layout.levels)
    if way.groups:
        groups = tuple(BlockGroup(first=f, size=m, active=k) for f, m, k in GROUPS)
        settings |= {"groups": groups, "text_weight": TEXT_WEIGHT}
    if way.dropped:
        places = [first + place for first, size, _ in GROUPS for place in range(size)]
        moved = block_effects(teacher, calls, places).mean(0).tolist()
        gone: list[int] = []
        for first, size, active in GROUPS:
            gone += sorted(range(first, first + size), key=lambda place: moved[place])[: size - active]
        settings["dropped"] = tuple(sorted(gone))
    if way.left_out:
        calls = bench.even_calls(seed, 4, 12, mixed=False)
        places = [first + place for first, size, _ in GROUPS for place in range(size)]
        drop = sum(size - active for _, size, active in GROUPS)
        settings["borders"] = level_borders(calls, way.left_out)
        settings["stand_ins"] = way.fitted
        settings["left_out"] = choose_blocks(teacher, calls, drop, settings["borders"], places, stand_ins=way.fitted)
    conversion = Conversion(**settings)
    student = convert(teacher, conversion, importance=scores, seed=seed)
    if way.fitted and layout is not None:
        if layout.levels:
            start_levels(student, bench.even_calls(seed, FITTED_CALLS))
        else:
            start_experts(student, calls, seed=seed)
    if way.fitted and way.left_out:
        start_blocks(student, bench.even_calls(seed, mixed=False))
    if way.fitted and way.groups:
        start_groups(student, calls)
    return student, conversion
