"""Blocks that noise levels leave out: which run, what stands in for them, how both are found, saved and counted."""

from __future__ import annotations

import copy
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from closeness import assert_same_but_rounding
from dense_models import CONVERTIBLE, build, run
from test_by_noise import mixed, recorded, told
from torch import nn
from torch.nn import functional

from outpace.accel import find_family
from outpace.accel.estimate.recording import record_call
from outpace.accel.experts import (
    Conversion,
    Experts,
    Integers,
    active_parameters,
    block_outputs,
    choose_blocks,
    convert,
    count,
    find_scheduled,
    held_samples,
    level_borders,
    load_transformer,
    parameter_count,
    set_active,
    start_blocks,
)
from outpace.accel.experts.block_choice import _flops
from outpace.accel.experts.pruned import left_out
from outpace.errors import ConfigError, InputError

every_model = pytest.mark.parametrize("cls", CONVERTIBLE)
FLUX = "FluxTransformer2DModel"


def scheduled(cls: str, *, stand_ins: bool = True, **more: Any) -> tuple[nn.Module, nn.Module]:
    """A dense model, and one that leaves out the block before the last at 100, and at 900 the one before it, too."""
    dense = build(cls)
    low, high = ((told(dense, time), time) for time in (100.0, 900.0))
    last = len(find_family(dense).blocks(dense)) - 2
    gone = {100.0: (last,), 900.0: (last - 1, last)}
    left_out = tuple(gone[time] for _, time in sorted((low, high)))
    borders = ((low[0] + high[0]) / 2,)
    return dense, convert(dense, Conversion(left_out=left_out, borders=borders, stand_ins=stand_ins, **more))


def moved(model: nn.Module) -> nn.Module:
    """The same with stand-ins that do something."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for block, _ in find_scheduled(model):
            for weight in block.stand_ins.parameters():  # pyright: ignore
                weight.normal_(std=0.05, generator=generator)
    return model


@every_model
def test_levels_leave_their_blocks_out_and_all_blocks_are_the_dense_model(cls: str) -> None:
    dense, model = scheduled(cls)
    last = len(find_family(dense).blocks(dense)) - 2
    for time, gone in ((100.0, (last,)), (900.0, (last - 1, last))):
        with ExitStack() as without:
            for place in gone:
                without.enter_context(left_out(*find_family(dense).blocks(dense)[place]))
            wanted = run(dense, time=time)
        assert_same_but_rounding(run(model, time=time), wanted)
    plain = run(dense, time=900.0)
    assert (run(moved(model), time=900.0) - plain).abs().max() > 1e-4
    set_active(model, "all")
    assert_same_but_rounding(run(model, time=900.0), plain)
    set_active(model, "schedule")
    assert (run(model, time=900.0) - plain).abs().max() > 1e-4


@every_model
def test_a_dropped_block_is_passed_over_and_the_others_are_as_they_were(cls: str) -> None:
    dense = build(cls)
    place = len(find_family(dense).blocks(dense)) - 2
    settings = Conversion(dropped=(place,))
    if find_family(dense).numbered:
        with pytest.raises(ConfigError, match="leave them out by noise level"):
            convert(dense, settings)
        return
    with left_out(*find_family(dense).blocks(dense)[place]):
        wanted = run(dense)
    assert_same_but_rounding(run(convert(dense, settings)), wanted)


@pytest.mark.parametrize(
    "cls", [FLUX, "DiTTransformer2DModel", "HunyuanVideoTransformer3DModel", "WanTransformer3DModel"]
)
@pytest.mark.parametrize("stand_ins", [False, True])
def test_samples_of_a_batch_at_several_levels_are_what_each_is_alone(cls: str, stand_ins: bool) -> None:
    model = moved(scheduled(cls, stand_ins=stand_ins)[1])
    times = (100.0, 900.0, 100.0, 900.0)
    together = mixed(model, cls, times)
    for time in (100.0, 900.0):
        rows = [row for row, one in enumerate(times) if one == time]
        assert_same_but_rounding(together[rows], mixed(model, cls, (time,) * 4)[rows])


@pytest.mark.parametrize("cls", [FLUX, "WanTransformer3DModel", "SD3Transformer2DModel"])
@pytest.mark.parametrize("stand_ins", [False, True])
def test_a_saved_schedule_and_its_stand_ins_are_loaded(cls: str, stand_ins: bool, tmp_path: Path) -> None:
    model = moved(scheduled(cls, stand_ins=stand_ins)[1])
    model.save_pretrained(tmp_path)  # pyright: ignore
    again = load_transformer(tmp_path)
    for time in (100.0, 900.0):
        assert_same_but_rounding(run(again, time=time), run(model, time=time))
    settings = Conversion.from_dict(json.loads((tmp_path / "config.json").read_text())["conversion"])
    assert len(settings.left_out) == 2 and len(settings.borders) == 1
    other = copy.deepcopy(model)
    set_active(other, "all")
    assert not any(one.all for _, one in find_scheduled(model)), "a copy has a schedule of its own"


def test_beside_8_bit_codes_levels_leave_the_same_blocks_out() -> None:
    dense, model = scheduled(FLUX, stand_ins=False, integers=Integers())
    codes = convert(dense, Conversion(integers=Integers()))
    last = len(find_family(codes).blocks(codes)) - 2
    with left_out(*find_family(codes).blocks(codes)[last]):
        assert_same_but_rounding(run(model, time=100.0), run(codes, time=100.0))
    set_active(model, "all")
    assert_same_but_rounding(run(model), run(codes))


def test_beside_weights_by_noise_level_both_go_by_the_same_levels() -> None:
    dense, model = scheduled(FLUX, experts=Experts(layout="0S4E4A2W"))
    assert_same_but_rounding(run(model, time=900.0), run(scheduled(FLUX)[1], time=900.0))
    set_active(model, "all")
    assert_same_but_rounding(run(model), run(dense))
    set_active(model, 4)
    assert not any(one.all for _, one in find_scheduled(model))
    with pytest.raises(ConfigError, match="left out at 2 noise levels, and 0S4E4A4W has other ones"):
        scheduled(FLUX, experts=Experts(layout="0S4E4A4W"))


def test_blocks_are_left_out_where_the_output_moves_least_and_pay_for_what_was_asked() -> None:
    dense = build("DiTTransformer2DModel", num_layers=6)
    calls = recorded(dense, (100.0, 300.0, 700.0, 900.0))
    borders = level_borders(calls, 2)
    chosen = choose_blocks(dense, calls, 2, borders)
    first = choose_blocks(dense, calls, 1)
    far = {}
    for place in range(1, 5):
        less = convert(dense, Conversion(dropped=(place,)))
        far[place] = sum(float((run(less, time=t) - run(dense, time=t)).square().mean()) for t in (100, 300, 700, 900))
    assert min(far, key=lambda place: far[place]) in first[0]
    static = count(dense, Conversion(dropped=(1, 2)))
    mine = count(dense, Conversion(left_out=chosen, borders=borders))
    assert 4 <= sum(map(len, chosen)) <= 6 and mine.flops <= static.flops < mine.dense_flops
    with pytest.raises(ConfigError, match="5 blocks cannot be left out: there are 4"):
        choose_blocks(dense, calls, 5)
    with pytest.raises(InputError, match="no call is at noise level 2 of 2"):
        choose_blocks(dense, calls[:1], 1, (10_000.0,))
    with pytest.raises(InputError, match="give some"):
        choose_blocks(dense, [], 1)


def test_blocks_are_weighed_with_their_attention() -> None:
    dense = build("DiTTransformer2DModel")
    (call,) = recorded(dense, (100.0,))
    on_meta = {key: value.to("meta") if isinstance(value, torch.Tensor) else value for key, value in call.items()}
    wanted = record_call(copy.deepcopy(dense).to("meta"), {k: v for k, v in on_meta.items() if k != "return_dict"})
    assert sum(site.flops for _, site in wanted.attention) > 0
    assert _flops(dense, call) == wanted.flops


def test_a_block_that_does_nothing_at_one_level_goes_first_there() -> None:
    dense = build("DiTTransformer2DModel", num_layers=6)
    calls = recorded(dense, (100.0, 900.0))
    (border,) = level_borders(calls, 2)
    idle = {0: 2, 1: 3}
    for level, place in idle.items():

        def keep(_: nn.Module, args: Any, kwargs: Any, output: Any, level: int = level) -> Any:
            at = int(float(kwargs["timestep"].flatten()[0]) >= border)
            return args[0] if at == level else output

        dense.transformer_blocks[place].register_forward_hook(keep, with_kwargs=True)  # pyright: ignore
    chosen = choose_blocks(dense, calls, 1, (border,), stand_ins=True)
    assert all(place in chosen[level] for level, place in idle.items())


def test_levels_leave_out_the_first_of_one_list_and_more_of_it_where_it_matters_less() -> None:
    dense = build("DiTTransformer2DModel", num_layers=6)
    calls = recorded(dense, (100.0, 900.0))
    (border,) = level_borders(calls, 2)
    for place in (2, 3):

        def keep(_: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
            return args[0] if float(kwargs["timestep"].flatten()[0]) < border else output

        dense.transformer_blocks[place].register_forward_hook(keep, with_kwargs=True)  # pyright: ignore
    assert choose_blocks(dense, calls, 1, (border,)) == ((2, 3), ())
    low, high = choose_blocks(dense, calls, 3, (border,))
    assert len(low) + len(high) == 6 and high == low[: len(high)]
    assert (len(low), len(high)) == (4, 2), "neighbouring levels differ in two blocks at most"
    (alike,) = choose_blocks(dense, calls, 3)
    assert len(alike) == 3
    assert choose_blocks(dense, calls, 4, (border,)) == ((1, 2, 3, 4),) * 2, "all that there are"


@pytest.mark.parametrize("cls", [FLUX, "DiTTransformer2DModel"])
def test_stand_ins_begin_at_the_least_squares_fit(cls: str) -> None:
    dense, model = scheduled(cls)
    calls = recorded(dense, (100.0, 150.0, 850.0, 900.0))
    before = [float((run(model, time=t) - run(dense, time=t)).square().mean()) for t in (100.0, 900.0)]
    start_blocks(model, calls)
    after = [float((run(model, time=t) - run(dense, time=t)).square().mean()) for t in (100.0, 900.0)]
    assert all(a < 0.7 * b for a, b in zip(after, before, strict=True)), (before, after)
    # Of a regression with a bias nothing is left that is the same for all tokens.
    place = find_scheduled(model)[-1][1].place
    left: list[torch.Tensor] = []
    for call in calls[:2]:
        with block_outputs(dense) as wanted, torch.no_grad():
            dense(**call)
        with block_outputs(model) as given, torch.no_grad():
            model(**call)
        left.append((wanted[place] - given[place]).flatten(0, 1))
    errors = torch.cat(left)
    assert errors.mean(0).abs().max() < 1e-4 * errors.abs().mean() + 1e-6
    set_active(model, "all")
    assert_same_but_rounding(run(model), run(dense))
    with pytest.raises(ConfigError, match="nothing stands in for blocks"):
        start_blocks(dense, calls)
    with pytest.raises(ConfigError, match="nothing stands in for blocks"):
        start_blocks(scheduled(cls, stand_ins=False)[1], calls)


def test_a_stand_in_sees_normalised_tokens_and_adds_to_them() -> None:
    _, model = scheduled("DiTTransformer2DModel")
    block, one = find_scheduled(moved(model))[-1]
    x = torch.randn(2, 3, next(block.stand_ins.parameters()).shape[-1])  # pyright: ignore
    stand_in: Any = block.stand_ins["0"]  # pyright: ignore
    linear = stand_in.streams["hidden_states"]
    wanted = x + functional.linear(functional.layer_norm(x, x.shape[-1:]), linear.weight, linear.bias)
    assert_same_but_rounding(stand_in(one.stack, {"hidden_states": x}), wanted)
    other = torch.randn(2, 3, 5)
    assert stand_in(one.stack, {"hidden_states": other}) is other, "another width is handed on"


def test_a_level_is_held_to_its_stand_in_and_to_nothing_inside() -> None:
    dense, model = scheduled("DiTTransformer2DModel")
    last = len(find_family(dense).blocks(dense)) - 2
    mixed(model, "DiTTransformer2DModel", (100.0, 900.0))
    samples = [held_samples(model, place, 2) for place in range(last + 2)]
    assert samples == [None] * (last - 1) + [[0], [0, 1], None]
    _, bare = scheduled("DiTTransformer2DModel", stand_ins=False)
    mixed(bare, "DiTTransformer2DModel", (100.0, 900.0))
    samples = [held_samples(bare, place, 2) for place in range(last + 2)]
    assert samples == [None] * (last - 1) + [[0], [], None], "what is passed over is held to nothing"


def test_parameters_used_and_flops_are_those_of_the_mean_level() -> None:
    dense, model = scheduled("DiTTransformer2DModel")
    block, one = find_scheduled(model)[0]
    stand_in = next(one for block, _ in find_scheduled(model)[1:] for one in block.stand_ins.children())  # pyright: ignore
    own = sum(p.numel() for name, p in block.named_parameters() if "stand_ins" not in name)
    assert one.without != frozenset({0, 1}) and len(list(block.stand_ins.children())) == 0  # pyright: ignore
    # One block at every level and one at half of them; each level one of the two stand-ins.
    wanted = parameter_count(dense) - 1.5 * own + parameter_count(stand_in)
    assert active_parameters(model) == round(wanted)
    set_active(model, "all")
    assert active_parameters(model) == parameter_count(dense)


def test_schedules_are_read_and_checked() -> None:
    settings = Conversion(left_out=((1, 2), ()), borders=(0.5,))
    assert Conversion.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings and settings.levels == 2
    for given, says in (
        ({"left_out": ((2, 1),)}, "left_out blocks are named once each and in order"),
        ({"left_out": ((0,),)}, "left_out must be a whole number >= 1"),
        ({"left_out": ((1,),), "dropped": (2,)}, "not several of it"),
        ({"left_out": ((1,), (2,)), "borders": (0.1, 0.2)}, "2 noise levels have 1 borders"),
        ({"dropped": (1,), "stand_ins": True}, "nothing is there to stand in for"),
    ):
        with pytest.raises(ConfigError, match=says):
            Conversion(**given)  # pyright: ignore
    with pytest.raises(ConfigError, match="block 4 cannot be left out: of 5, choose among 1-3"):
        convert(build(FLUX), Conversion(left_out=((4,),)))
    model = scheduled(FLUX)[1]
    with pytest.raises(ConfigError, match="run as 'all' or by their 'schedule', not 2"):
        set_active(model, 2)
    with pytest.raises(ConfigError, match="leave no blocks out"):
        set_active(convert(build(FLUX), Conversion(experts=Experts())), "schedule")
