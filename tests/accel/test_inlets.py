"""In a call in which no block runs, what works for the blocks alone is not run either, and the picture is the same."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.hooks import HookRegistry, ModelHook
from tiny import AdapterLayer, TinyPipeline, noise, texts
from tiny_models import SPECIMENS
from torch import nn

from outpace.accel import (
    FAMILIES,
    ExactReuse,
    Family,
    GatedTaylor,
    IntervalTaylor,
    ScheduledTaylor,
    accelerate,
    check_family,
    find_family,
    register_family,
)
from outpace.accel import inlets as inlets_module
from outpace.accel.check import SEEDS, Steps, Told, leaves, scaled
from outpace.accel.families.family import modules_at
from outpace.accel.forecast.deciding import Deciding, given_of
from outpace.accel.handle import Acceleration
from outpace.accel.inlets import Like
from outpace.accel.kept import KEPT
from outpace.accel.part import Current
from outpace.errors import UnsupportedModelError

SECONDS_EACH = ("AnyFlowFARTransformer3DModel", "Kandinsky6SRTransformer3DModel")
"""Their attention goes through FlexAttention, which takes seconds where it is not compiled."""
FLUX, WAN, DIT, LUMINA = (
    *("FluxTransformer2DModel", "WanTransformer3DModel", "DiTTransformer2DModel", "Lumina2Transformer2DModel"),
)
NAMED = [cls for _, family in FAMILIES.items() if family.for_blocks for cls in family.transformers]
FORECASTS = IntervalTaylor(interval=3, warmup=2)
CONSTANT = {WAN: (ExactReuse(),), LUMINA: (ExactReuse(),)}


@dataclass
class Runs:
    """Which modules ran in each call of a transformer, counted at their `forward`, which no hook gives away."""

    calls: list[list[str]]

    @staticmethod
    def of(transformer: nn.Module, modules: dict[str, nn.Module]) -> Runs:
        runs = Runs([])

        def count(module: nn.Module, note: Callable[[], object]) -> None:
            forward = module.forward

            @functools.wraps(forward)
            def counted(*args: Any, **kwargs: Any) -> Any:
                note()
                return forward(*args, **kwargs)

            module.forward = counted

        count(transformer, lambda: runs.calls.append([]))
        for path, module in modules.items():
            # Outside of a call, a pipeline may use one of them by itself.
            count(module, lambda path=path: runs.calls and runs.calls[-1].append(path))
        return runs


def watched(transformer: nn.Module) -> tuple[Runs, set[str], set[str]]:
    """The runs of a transformer to come, the paths of its blocks, and of what works for them alone."""
    family = find_family(transformer)
    named = modules_at(transformer, family.for_blocks)
    paths = {id(module): path for path, module in transformer.named_modules()}
    blocks = {paths[id(block)]: block for _, block in family.blocks(transformer)}
    return Runs.of(transformer, {**named, **blocks}), set(blocks), set(named)


@torch.no_grad()
def forecast(cls: str, model: Any) -> list[list[torch.Tensor]]:
    """What a tiny transformer gives in four calls at other latents and times, all after the first forecast."""
    family, signature, scheduler = find_family(model), inspect.signature(model.forward), Steps()
    made = []
    with Acceleration(SimpleNamespace(transformer=model, scheduler=scheduler), [Told(computed=None)]):
        scheduler.set_timesteps(4)
        for factor in (1.0, 0.9, 0.8, 0.7):
            args, kwargs = SPECIMENS[cls].inputs(SEEDS, model)
            named = signature.bind(*args, **kwargs).arguments
            named |= named.pop("kwargs", {})
            moved = {
                name: scaled(named[name], factor) for name in family.moves if name in named and name != family.cache
            }
            made.append(leaves(model(**{**named, **moved})))
            scheduler.step()
    return made


def same(one: Sequence[Any], other: Sequence[Any]) -> bool:
    return all(
        torch.equal(a, b) for these, those in zip(one, other, strict=True) for a, b in zip(these, those, strict=True)
    )


@pytest.mark.parametrize(
    "cls", [pytest.param(cls, marks=pytest.mark.slow) if cls in SECONDS_EACH else cls for cls in NAMED]
)
def test_they_run_where_blocks_do_and_nothing_changes(cls: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = SPECIMENS[cls].build()
    with monkeypatch.context() as without:
        without.setattr(inlets_module, "modules_at", lambda *_: {})
        expected = forecast(cls, model)
    runs, blocks, named = watched(model)
    made = forecast(cls, model)
    assert same(made, expected) and all(bool(x.isfinite().all()) for leaf in made for x in leaf)
    first, *others = runs.calls[-4:]
    assert blocks <= set(first) and named & set(first)
    assert not any(blocks & set(call) for call in others), "nothing was forecast"
    assert [sorted(named & set(call)) for call in others] == [[], [], []]


def test_every_name_is_of_a_module_of_some_class() -> None:
    for _, family in FAMILIES.items():
        if not family.for_blocks:
            continue
        models = [SPECIMENS[cls].build() for cls in family.transformers]
        for pattern in family.for_blocks:
            assert any(modules_at(model, (pattern,)) for model in models), (family.name, pattern)
            assert not any(f"{pattern}.".startswith(f"{stack.path}.") for stack in family.stacks), "that is a block"


@pytest.mark.parametrize("read_by_the_head", ["time_text_embed", "norm_out.linear", "proj_out"])
def test_a_name_of_what_the_head_reads_is_a_picture_of_nan(read_by_the_head: str) -> None:
    model = SPECIMENS[FLUX].build()
    right = find_family(model)
    kept = {f.name: getattr(right, f.name) for f in fields(Family)}
    changed = {"name": "Headless", "transformers": ("Headless",), "for_blocks": (read_by_the_head,)}
    register_family(Family(**{**kept, **changed}))
    try:
        model.__class__ = type("Headless", (type(model),), {})
        first, *others = forecast(FLUX, model)
        wrong = [found.line() for found in check_family(model, lambda seeds: SPECIMENS[FLUX].inputs(seeds, model))]
    finally:
        FAMILIES.remove("Headless")
    assert bool(first[0].isfinite().all()) and all(bool(made[0].isnan().all()) for made in others)
    assert any(line.startswith("WRONG") and "all forecast" in line and "nan off" in line for line in wrong)


def test_names_that_name_nothing_are_told() -> None:
    model = SPECIMENS[FLUX].build()
    kept = {f.name: getattr(find_family(model), f.name) for f in fields(Family)}
    register_family(Family(**{**kept, "name": "Typo", "transformers": ("Typo",), "for_blocks": ("x_embeder",)}))
    try:
        model.__class__ = type("Typo", (type(model),), {})
        found = check_family(model, lambda seeds: SPECIMENS[FLUX].inputs(seeds, model))
    finally:
        FAMILIES.remove("Typo")
    assert [one.detail for one in found if one.passed is False] == ["for_blocks names none of the model's modules"]


def held_together(
    monkeypatch: pytest.MonkeyPatch, cls: str, call: Callable[[TinyPipeline], Any], *methods: Any, **settings: Any
) -> tuple[list[list[str]], Any, set[str]]:
    """A run beside one in which nothing is foreseen, so that every module runs in every call: the same latents and the
    same decisions for the same reasons.

    Returns: what of blocks and inlets ran, call by call; the handle; the paths of the inlets.
    """
    pipe = TinyPipeline(cls, **settings)
    with monkeypatch.context() as unforeseen:
        unforeseen.setattr(Deciding, "_foresee", lambda *_: None)
        with accelerate(pipe, *methods) as before:
            expected = call(pipe)
    pipe = TinyPipeline(cls, **settings)
    runs, _, named = watched(pipe.transformer)
    with accelerate(pipe, *methods) as run:
        made = call(pipe)
    assert torch.equal(made, expected) and bool(made.isfinite().all())
    told = [[(c.computed, c.reason, c.order, c.error, c.blocks) for c in r.trace.calls] for r in (before, run)]
    assert told[0] == told[1] and before.trace.warnings == run.trace.warnings
    assert len(runs.calls) == len(run.trace.calls)
    for ran, record in zip(runs.calls, run.trace.calls, strict=True):
        blocks_ran = set(ran) - named
        assert bool(blocks_ran) == (record.blocks > 0)
        assert blocks_ran or not named & set(ran), "an inlet ran and no block"
        assert not blocks_ran or named & set(ran), "a block ran without what feeds it"
    return runs.calls, run, named


def idle(calls: list[list[str]]) -> int:
    """Calls in which nothing ran."""
    return sum(not ran for ran in calls)


CALLS: dict[str, Callable[[TinyPipeline], Any]] = {
    "one sample": lambda pipe: pipe(steps=9),
    "batched guidance": lambda pipe: pipe([0, 1], steps=9, guidance="batched"),
    "separate guidance": lambda pipe: pipe([0, 1], steps=9, guidance="separate"),
    "branches with names": lambda pipe: pipe(steps=9, guidance="separate", context=True),
    "guidance that ends": lambda pipe: pipe(steps=12, guidance="separate", guided_steps=5),
    "guidance in one call that ends": lambda pipe: pipe(steps=12, guidance="batched", guided_steps=5),
    "a callback": lambda pipe: pipe(steps=9, callback=lambda step, x: x + 0.1 if step == 4 else None),
    "two runs": lambda pipe: pipe([0], steps=9) + pipe([1], steps=7),
    "from the middle": lambda pipe: pipe(steps=12, begin=4),
}
METHODS_TRIED: dict[str, tuple[Any, ...]] = {
    "intervals": (FORECASTS,),
    "intervals beside exact reuse": (FORECASTS, ExactReuse()),
    "a schedule": (ScheduledTaylor(speedup=2.5),),
    "a plan": (GatedTaylor(threshold=1e6, warmup=2),),
}


@pytest.mark.parametrize("methods", METHODS_TRIED)
@pytest.mark.parametrize("call", CALLS)
def test_every_way_to_call_decides_and_makes_the_same(call: str, methods: str, monkeypatch: Any) -> None:
    calls, _, _ = held_together(monkeypatch, FLUX, CALLS[call], *METHODS_TRIED[methods])
    assert idle(calls) >= 3


@pytest.mark.parametrize("cls", [WAN, DIT, LUMINA])
def test_other_families_do_so_too(cls: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, _, _ = held_together(monkeypatch, cls, CALLS["separate guidance"], FORECASTS, *CONSTANT.get(cls, ()))
    assert idle(calls) >= 6


def test_where_a_block_runs_for_some_row_everything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def dials(pipe: TinyPipeline) -> Any:
        run = getattr(pipe, KEPT).handle
        run.assign([ScheduledTaylor(speedup=1.0), ScheduledTaylor(speedup=3.0)])
        return pipe([0, 1], steps=9, guidance="batched")

    calls, run, _ = held_together(monkeypatch, FLUX, dials, ScheduledTaylor(speedup=2.0))
    assert idle(calls) == 0 and run.trace.totals()["forecast"] == 6


def test_where_the_gate_asks_the_first_block_everything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, run, _ = held_together(monkeypatch, FLUX, CALLS["one sample"], GatedTaylor(threshold=1e6, gate="budget"))
    assert idle(calls) == 0 and run.trace.totals()["forecast"] >= 3


def test_in_a_partial_step_everything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ScheduledTaylor(speedup=3.0, exact=True)
    calls, run, named = held_together(monkeypatch, FLUX, lambda pipe: pipe(steps=10), whole)
    partial = [place for place, call in enumerate(run.trace.calls) if call.partial]
    assert len(partial) == 1 and named & set(calls[partial[0]]) and idle(calls) == 6


def test_what_is_asked_for_changes_in_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def another_scale(pipe: TinyPipeline) -> Any:
        pipe.transformer._hf_peft_config_loaded, layer = True, AdapterLayer().eval()
        pipe.transformer.adapted = layer
        return pipe(steps=9, callback=lambda step, _: layer.scaling.update(style=0.5) if step == 4 else None)

    def autocast_from_the_middle(pipe: TinyPipeline) -> Any:
        mixed = torch.autocast("cpu", torch.bfloat16, enabled=True)
        made = pipe(steps=9, callback=lambda step, _: mixed.__enter__() and None if step == 4 else None)
        mixed.__exit__(None, None, None)
        return made

    for change in (another_scale, autocast_from_the_middle):
        calls, run, _ = held_together(monkeypatch, WAN, change, FORECASTS)
        assert 2 <= idle(calls) and run.trace.calls[5].computed == [True], change


def test_by_what_a_call_is_foreseen() -> None:
    pipe = TinyPipeline(FLUX)
    with accelerate(pipe, FORECASTS) as run:
        [denoiser] = run._denoisers
        named = {"hidden_states": noise(pipe.model, [0]), "timestep": torch.tensor([0.5]), "txt_ids": torch.zeros(5, 3)}

        def given(generation: int = 0, **changed: Any) -> Any:
            return given_of(Current(denoiser, SimpleNamespace(), {**named, **changed}, None, generation))  # type: ignore

        known = given()
        assert given(timestep=torch.tensor([0.1]), hidden_states=noise(pipe.model, [3])) == known
        assert given(generation=1) != known and given(hidden_states=noise(pipe.model, [0, 1])) != known
        assert given(hidden_states=named["hidden_states"].double()) != known and given(timestep=0.5) != known
        with torch.autocast("cpu", torch.bfloat16):
            assert given() != known
        pipe.transformer.double()
        assert given() != known
        pipe.transformer.float()
        assert given() == known
        denoiser.ranks = SimpleNamespace()  # type: ignore[assignment]
        assert given() is None, "processes have to agree"
        denoiser.ranks = None


def test_another_size_inside_a_run_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    def grown(pipe: TinyPipeline) -> Any:
        return pipe(steps=9, callback=lambda step, x: torch.cat([x, x], -1) if step == 4 else None)

    calls, run, _ = held_together(monkeypatch, WAN, grown, FORECASTS)
    assert run.trace.calls[5].reason == ["inputs changed"] and idle(calls) >= 3


def test_what_somebody_else_follows_runs_and_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    ways: dict[str, Callable[[nn.Module], object]] = {
        "a hook": lambda module: module.register_forward_hook(lambda *_: seen.append(1)),
        "a hook of diffusers": lambda module: HookRegistry.check_if_exists_or_initialize(module).register_hook(
            Noticing(seen), "noticing"
        ),
        "training mode": lambda module: module.train(),
    }
    for way, hold in ways.items():
        pipe = TinyPipeline(FLUX)
        hold(pipe.transformer.x_embedder)
        runs, _, named = watched(pipe.transformer)
        with accelerate(pipe, FORECASTS):
            pipe(steps=9)
        without = [sorted(named & set(ran)) for ran in runs.calls if len(set(ran) - named) == 0]
        assert without and all(ran == ["x_embedder"] for ran in without), way
    assert len(seen) == 18


class Noticing(ModelHook):
    """Counts the calls of a module."""

    def __init__(self, seen: list[int]) -> None:
        super().__init__()
        self.seen = seen

    def post_forward(self, module: nn.Module, output: Any) -> Any:
        self.seen.append(1)
        return output


def test_a_call_that_fails_leaves_nothing_standing_in() -> None:
    with accelerate(TinyPipeline(FLUX), FORECASTS) as run:
        expected = run._target(steps=9)
    pipe = TinyPipeline(FLUX)
    head, left = pipe.transformer.proj_out.forward, [5]

    def failing(x: torch.Tensor) -> torch.Tensor:
        left[0] -= 1
        if left[0] == 0:
            raise RuntimeError("the head fails")
        return head(x)

    pipe.transformer.proj_out.forward = failing
    with accelerate(pipe, FORECASTS) as run:
        with pytest.raises(RuntimeError, match="the head fails"):
            pipe(steps=9)
        assert not run.trace.calls[-1].computed[0] or run.trace.calls[-1].step < 4
        embedded = pipe.transformer.x_embedder(noise(pipe.model, [0]))
        assert bool(embedded.isfinite().all()), "outside of a call, modules are what they are"
        assert torch.equal(pipe(steps=9), expected)


def test_everything_is_put_back() -> None:
    pipe = TinyPipeline(FLUX)
    plain = pipe(steps=5)
    before = {name: set(module.__dict__) for name, module in pipe.transformer.named_modules()}
    run = accelerate(pipe, FORECASTS, ExactReuse())
    assert pipe.transformer.context_embedder._compiled_call_impl is not None
    pipe(steps=5)
    run.restore()
    assert {name: set(module.__dict__) for name, module in pipe.transformer.named_modules()} == before
    assert all(module._compiled_call_impl is None for module in pipe.transformer.modules())
    assert torch.equal(pipe(steps=5), plain)


def test_compiled_modules_and_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.compiler.reset()
    pipe = TinyPipeline(FLUX)
    pipe.transformer.pos_embed.compile(backend="eager")
    pipe.transformer.compile_repeated_blocks(backend="eager", fullgraph=True)
    plain = pipe(steps=5)
    with accelerate(pipe, FORECASTS) as run:
        made = pipe(steps=5)
    assert run.trace.totals()["forecast"] == 2
    with monkeypatch.context() as unforeseen:
        unforeseen.setattr(Deciding, "_foresee", lambda *_: None)
        with accelerate(pipe, FORECASTS):
            assert torch.equal(made, pipe(steps=5))
    assert torch.equal(pipe(steps=5), plain)
    torch.compiler.reset()


def test_what_cannot_be_stood_in_for_runs() -> None:
    x = torch.arange(6.0).reshape(2, 3)
    for given in ([x], {"x": x}, 1.0, None, (x, [x]), x.long(), (x, x > 1), x.to_sparse(), nn.Parameter(x)):
        assert Like.of(given) is None
    for given in (x, x.T, x.T.to(torch.complex64), x[:, :0], x[0, 0], x[:1].expand(4, 3), x.bfloat16()[:, 1:]):
        like = Like.of(given)
        assert like is not None
        made = like.stand_in()
        assert (made.shape, made.stride(), made.dtype) == (given.shape, given.stride(), given.dtype)
        assert bool(made.isnan().all())
    like = Like.of((x, None, x.T))
    assert like is not None
    one, none, other = like.stand_in()
    assert one.shape == x.shape and none is None and other.stride() == x.T.stride()


@pytest.mark.parametrize("named", [True, False])
def test_a_first_block_that_is_given_something_else_after_all(named: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transformer whose tokens are fewer in the fourth call, by itself: seen in time where all of it runs."""
    pipe, calls = TinyPipeline(FLUX), [0]
    embed, place = pipe.transformer.x_embedder.forward, pipe.transformer.pos_embed.forward
    if named:
        monkeypatch.setattr(inlets_module, "modules_at", lambda model, _: {"pos_embed": model.pos_embed})
    else:
        monkeypatch.setattr(inlets_module, "modules_at", lambda *_: {})

    def fewer(x: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        return embed(x)[:, : 8 if calls[0] > 3 else None]

    def fewer_places(ids: torch.Tensor) -> Any:
        return place(ids[: 5 + 8] if calls[0] > 3 else ids)

    pipe.transformer.x_embedder.forward, pipe.transformer.pos_embed.forward = fewer, fewer_places
    latents, text = noise(pipe.model, [0]), texts([0])
    with torch.no_grad(), accelerate(pipe.transformer, Told()) as run:
        for step in range(3):
            pipe.model.call(pipe.transformer, latents, torch.tensor([900.0 - step]), text)
        assert run.trace.calls[-1].blocks == 0
        if named:
            with pytest.raises(UnsupportedModelError, match="for_blocks"):
                pipe.model.call(pipe.transformer, latents, torch.tensor([897.0]), text)
        else:
            made = pipe.model.call(pipe.transformer, latents, torch.tensor([897.0]), text)
            assert made.shape[1] == 8 and run.trace.calls[-1].reason == ["inputs changed"]
            assert bool(made.isfinite().all()) and run.trace.calls[-1].blocks == run.trace.blocks
