"""What a run is asked for may change inside it: the change is seen, its step computed, the reason given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny import AdapterLayer, TinyPipeline, noise, texts
from torch.overrides import TorchFunctionMode

import outpace
from outpace.accel import FAMILIES, AdaSpa, BrickSkipping, GatedTaylor, IntervalTaylor, accelerate
from outpace.accel.conditioning import MOST_VALUES, Conditioning, some_values

FLUX, WAN = "FluxTransformer2DModel", "WanTransformer3DModel"
ASKED = FAMILIES["flux"]
EVERYTHING = GatedTaylor(threshold=1e6, gate="paper", warmup=3, cooldown=0, max_skips=100)
AFTER_A_CHANGE = [True] * 3 + [False] * 3 + [True] * 3 + [False] * 2
"""Of 11 steps, with a change before the seventh: a history begun anew, with a warm-up of its own."""

Change = Callable[[int, dict[str, Any]], None]


def drive(pipe: TinyPipeline, change: Change | None = None, rebuilt: bool = False, **given: Any) -> list[Any]:
    """Eleven steps of a transformer with `given` beside its text; `change(step, call)` may alter what it gets."""
    call: dict[str, Any] = {"text": texts([0]), **given}
    pipe.scheduler.set_timesteps(11)
    x = noise(pipe.model, [0])
    outputs = []
    for step, t in enumerate(pipe.scheduler.timesteps):
        if change is not None:
            change(step, call)
        more = {k: v.clone() if rebuilt and isinstance(v, torch.Tensor) else v for k, v in call.items()}
        text = more.pop("text")
        out = pipe.model.call(pipe.transformer, x, t.expand(1).float(), text, **more)
        outputs.append(out)
        x = pipe.scheduler.step(out, t, x, return_dict=False)[0]
    return outputs


def decided(run: Any) -> list[bool]:
    return [c.computed[0] for c in run.trace.calls]


def at_six(name: str, value: Callable[[Any], Any]) -> Change:
    def change(step: int, call: dict[str, Any]) -> None:
        if step == 6:
            call[name] = value(call.get(name))

    return change


def written(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.mul_(-1.0)


CHANGES: dict[str, tuple[str, dict[str, Any], Change, str]] = {
    "prompt": (FLUX, {}, at_six("text", lambda _: texts([5])), "encoder_hidden_states"),
    "one word": (
        FLUX,
        {},
        at_six("text", lambda text: torch.cat([text[:, :-1], -text[:, -1:]], 1)),
        "encoder_hidden_states",
    ),
    "written in place": (FLUX, {}, at_six("text", written), "encoder_hidden_states"),
    "scale of the call": (
        FLUX,
        {"joint_attention_kwargs": {"scale": 1.0}},
        at_six("joint_attention_kwargs", lambda _: {"scale": 0.5}),
        "joint_attention_kwargs",
    ),
}


@pytest.mark.parametrize("rebuilt", [False, True])
@pytest.mark.parametrize("name", list(CHANGES))
def test_a_change_is_seen_and_its_step_computed(name: str, rebuilt: bool) -> None:
    cls, given, change, argument = CHANGES[name]
    given = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in given.items()}
    pipe = TinyPipeline(cls)
    with accelerate(pipe, EVERYTHING) as run:
        drive(pipe, change, rebuilt, **given)
    assert decided(run) == AFTER_A_CHANGE
    assert run.trace.calls[6].reason == [f"{argument} changed"]
    assert f"{argument} changed 1" in run.summary()


@pytest.mark.parametrize("cls", [FLUX, WAN, "QwenImageTransformer2DModel"])
def test_tensors_built_anew_with_the_same_values_change_nothing(cls: str) -> None:
    pipe = TinyPipeline(cls)
    with accelerate(pipe, EVERYTHING) as run:
        drive(pipe, rebuilt=True)
    assert decided(run) == [True] * 3 + [False] * 8


def test_a_small_change_of_guidance_is_one() -> None:
    pipe = TinyPipeline(FLUX, guidance_embeds=True)
    change = at_six("guidance", lambda _: torch.tensor([3.6]))
    with accelerate(pipe, EVERYTHING) as run:
        drive(pipe, change, guidance=torch.tensor([3.5]))
    assert decided(run) == AFTER_A_CHANGE


@pytest.mark.parametrize("block", [0, 2, -1])
def test_an_adapter_in_any_block(block: int) -> None:
    pipe = TinyPipeline(WAN)
    pipe.transformer._hf_peft_config_loaded = True
    layer = pipe.transformer.blocks[block].attn1.adapter = AdapterLayer()

    def change(step: int, call: dict[str, Any]) -> None:
        if step == 6:
            layer.scaling["style"] = 0.3

    with accelerate(pipe, EVERYTHING) as run:
        drive(pipe, change)
    assert decided(run) == AFTER_A_CHANGE
    assert run.trace.calls[6].reason == ["adapters changed"]


def test_the_scale_of_an_image_prompt() -> None:
    pipe = TinyPipeline(FLUX)
    processor = pipe.transformer.transformer_blocks[0].attn.processor
    processor.scale = [1.0]

    def change(step: int, call: dict[str, Any]) -> None:
        if step == 6:
            processor.scale = [0.4]

    with accelerate(pipe, EVERYTHING) as run:
        drive(pipe, change)
    assert decided(run) == AFTER_A_CHANGE


def test_another_control_picture_is_seen_and_a_moving_one_is_not() -> None:
    pipe = TinyPipeline(FLUX)
    make = torch.Generator().manual_seed(7)
    first, second = torch.randn(2, 1, 16, 16, generator=make)

    def moving(step: int, call: dict[str, Any]) -> None:
        base = second if switched and step >= 6 else first
        call["controlnet_block_samples"] = [base * (1.0 + 0.03 * step)] * 2

    for switched in (False, True):
        with accelerate(pipe, EVERYTHING) as run:
            drive(pipe, moving)
        assert decided(run) == (AFTER_A_CHANGE if switched else [True] * 3 + [False] * 8)


def separate_calls(pipe: TinyPipeline, order: Callable[[int], list[str]]) -> None:
    """Guidance without `cache_context`: at each step the branches of `order(step)`, as one place after another."""
    text = {"cond": texts([0]), "uncond": texts([-1]), "other": texts([7])}
    pipe.scheduler.set_timesteps(12)
    x = noise(pipe.model, [0])
    for step, t in enumerate(pipe.scheduler.timesteps):
        out = x
        for name in order(step):
            out = pipe.model.call(pipe.transformer, x, t.expand(1).float(), text[name])
        x = pipe.scheduler.step(out, t, x, return_dict=False)[0]


def test_guidance_that_stops_keeps_the_history_of_the_branch_that_goes_on() -> None:
    """The unconditional branch is called first, so that the other takes its place when guidance stops."""
    pipe = TinyPipeline(WAN)
    with accelerate(pipe, EVERYTHING) as run:
        separate_calls(pipe, lambda step: ["uncond", "cond"] if step < 6 else ["cond"])
    assert [c.branch for c in run.trace.calls] == ["0", "1"] * 6 + ["1"] * 6
    went_on = [c for c in run.trace.calls if c.branch == "1"]
    assert [c.computed[0] for c in went_on] == [True] * 3 + [False] * 3 + [True] * 2 + [False] * 4
    assert {c.reason[0] for c in went_on[6:8]} == {"never led before"}, "the gate asks what only the leader keeps"


def test_guidance_that_starts_is_not_taken_for_the_branch_whose_place_it_takes() -> None:
    pipe = TinyPipeline(WAN)
    with accelerate(pipe, EVERYTHING) as run:
        separate_calls(pipe, lambda step: ["cond"] if step < 6 else ["uncond", "cond"])
    at_the_start = [c for c in run.trace.calls if c.step == 6]
    assert [c.computed[0] for c in at_the_start] == [True, True]
    assert at_the_start[0].reason == ["encoder_hidden_states changed"]


def test_a_branch_between_two_others_begins_and_ends() -> None:
    pipe = TinyPipeline(WAN)
    order = lambda step: ["cond", "other", "uncond"] if 5 <= step < 8 else ["cond", "uncond"]  # noqa: E731
    with accelerate(pipe, EVERYTHING) as run:
        separate_calls(pipe, order)
    steps = [[c for c in run.trace.calls if c.step == step] for step in range(12)]
    assert all(call[0].computed == [False] for call in steps[3:]), "the first branch goes on as it was"
    assert steps[5][1].computed == [True] and steps[5][1].reason == ["encoder_hidden_states changed"]


@pytest.mark.parametrize(
    "method", [BrickSkipping(schedule="1-2@0..1"), AdaSpa(sparsity=0.5, searches=(0.0,), min_tokens=1, min_gain=0.0)]
)
def test_other_methods_begin_anew_as_well(method: Any) -> None:
    pipe = TinyPipeline(WAN)
    with accelerate(pipe, method) as run:
        drive(pipe, at_six("text", lambda _: texts([5])))
    if run.trace.attention is not None:
        assert {s.step for s in run.trace.attention.searches} == {0, 6}
    else:
        assert [c.skipped[0] for c in run.trace.calls] == [0.0] + [2.0] * 5 + [0.0] + [2.0] * 4


class Reads(TorchFunctionMode):
    """Counts what would wait for a device: values that are read."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += getattr(func, "__name__", "") in ("tolist", "item", "__bool__", "__float__", "cpu", "equal")
        return func(*args, **(kwargs or {}))


def test_an_ordinary_call_reads_nothing_and_another_reads_once() -> None:
    text, pooled, mask = torch.randn(1, 512, 64), torch.randn(1, 64), torch.ones(1, 512, dtype=torch.bool)
    given = {"encoder_hidden_states": text, "pooled_projections": pooled, "encoder_attention_mask": mask}
    given["attention_kwargs"] = {"ip_adapter_image_embeds": [torch.randn(1, 4, 16)], "scale": 0.7}
    for rebuilt in (False, True):
        known = Conditioning()
        known.look("transformer", "0", {**given, "hidden_states": torch.randn(1, 4, 4)}, ASKED)
        again = {k: v.clone() if rebuilt and isinstance(v, torch.Tensor) else v for k, v in given.items()}
        with Reads() as reads:
            _, generation, changed = known.look(
                "transformer", "0", {**again, "hidden_states": torch.randn(1, 4, 4)}, ASKED
            )
        assert (generation, changed) == (1, "")
        assert reads.count == int(rebuilt)


def other_values(value: Any) -> Any:
    """The same kind of argument, asking for something else."""
    if isinstance(value, torch.Tensor):
        return ~value if value.dtype == torch.bool else value + 1
    if isinstance(value, dict):
        return {key: other_values(item) for key, item in value.items()}
    return [other_values(item) for item in value] if isinstance(value, list) else value * 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pooled_projections", torch.randn(2, 8)),
        ("guidance", torch.tensor([3.5])),
        ("encoder_hidden_states_mask", torch.ones(1, 5, dtype=torch.bool)),
        ("attention_mask", torch.zeros(1, 5)),
        ("encoder_hidden_states_image", torch.randn(1, 3, 8)),
        ("control_hidden_states", torch.randn(1, 4, 2, 3, 3)),
        ("control_hidden_states_scale", [torch.ones(1), torch.ones(1)]),
        ("attention_kwargs", {"ip_adapter_image_embeds": [torch.randn(1, 4, 8)], "scale": 0.5}),
        ("img_shapes", [[[1, 4, 4]]]),
        ("cap_feats", [torch.randn(3, 8), torch.randn(5, 8)]),
        ("class_labels", torch.tensor([3])),
        ("skip_layers", [1]),
    ],
)
def test_whatever_is_asked_for_counts(name: str, value: Any) -> None:
    known = Conditioning()
    assert known.look("transformer", "0", {name: value}, ASKED) == ("0", 1, "")
    assert known.look("transformer", "0", {name: value}, ASKED) == ("0", 1, "")
    assert known.look("transformer", "0", {name: other_values(value)}, ASKED) == ("0", 2, f"{name} changed")
    assert known.look("transformer", "0", {name: None}, ASKED) == ("0", 3, f"{name} changed")


def test_what_moves_by_itself_does_not_count() -> None:
    known = Conditioning()
    for step in range(3):
        given = {"hidden_states": torch.ones(1) * step, "timestep": torch.ones(1) * step, "shift": (step, 1)}
        assert known.look("transformer", "0", given, FAMILIES["lego"]) == ("0", 1, "")
    assert known.look("transformer", "0", {**given, "shift": None}, FAMILIES["lego"])[2] == "shift changed"


def test_memory_that_torch_does_not_watch_is_compared_by_value() -> None:
    known = Conditioning()
    with torch.inference_mode():
        text = torch.randn(1, 5, 8)
        known.look("transformer", "0", {"encoder_hidden_states": text}, ASKED)
        assert known.look("transformer", "0", {"encoder_hidden_states": text}, ASKED)[2] == ""
        text.neg_()
        assert (
            known.look("transformer", "0", {"encoder_hidden_states": text}, ASKED)[2] == "encoder_hidden_states changed"
        )


def test_views_of_the_same_memory_are_the_same() -> None:
    known, text = Conditioning(), torch.randn(2, 5, 8)
    known.look("transformer", "0", {"encoder_hidden_states": text[:1]}, ASKED)
    with Reads() as reads:
        assert known.look("transformer", "0", {"encoder_hidden_states": text[:1]}, ASKED)[2] == ""
    assert reads.count == 0
    text[0, 3, 2] += 1.0
    assert (
        known.look("transformer", "0", {"encoder_hidden_states": text[:1]}, ASKED)[2] == "encoder_hidden_states changed"
    )


def test_every_row_of_a_large_tensor_is_looked_at() -> None:
    large = torch.randn(1, 512, 64)
    before = some_values(large)
    assert len(before) <= MOST_VALUES
    for row in (0, 100, 511):
        other = large.clone()
        other[0, row] *= -1.0
        assert not torch.equal(some_values(other), before)


def psnr(one: Any, other: Any) -> float:
    return float(-10.0 * torch.log10(torch.mean((torch.tensor(one) - torch.tensor(other)) ** 2)))


@pytest.mark.parametrize("at", [8, 12, *(pytest.param(at, marks=pytest.mark.slow) for at in (10, 14))])
def test_a_prompt_switched_inside_a_run_of_a_trained_pipeline(at: int) -> None:
    pipe = outpace.load_pocket("flux")
    call: dict[str, Any] = {"height": 48, "width": 48, "max_sequence_length": 12, "output_type": "np"}
    first, second = "a blue circle above a yellow circle on black", "a red square left of a green square on white"
    embeds, _, _ = pipe.encode_prompt(second, None, max_sequence_length=12)

    def make(begin_anew: Any = None) -> Any:
        def switch(pipe: Any, step: int, t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            if step != at - 1:
                return tensors
            if begin_anew is not None:
                begin_anew()
            return {**tensors, "prompt_embeds": embeds}

        return pipe(
            first,
            num_inference_steps=20,
            generator=torch.Generator().manual_seed(0),
            callback_on_step_end=switch,
            callback_on_step_end_tensor_inputs=["latents", "prompt_embeds"],
            **call,
        ).images[0]

    plain = make()
    for method in (GatedTaylor(threshold=0.05, gate="budget"), IntervalTaylor(interval=3, correct=True)):
        with accelerate(pipe, method) as run:
            noticed = psnr(make(), plain)
            assert run.trace.calls[at].computed == [True]
            assert run.trace.calls[at].reason == ["encoder_hidden_states changed"]
            told = psnr(make(run.reset), plain)
        assert noticed >= told - 1.0, f"{noticed:.1f} dB, {told:.1f} where the history is dropped by hand"
