"""Importance of hidden units: the first-order change of a loss, held to the loss itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from dense_models import build, first_scores, run
from tiny_models import TINY_MODELS
from torch import nn

from outpace.accel.experts import (
    Conversion,
    Experts,
    convert,
    find_sites,
    output_change,
    random_importance,
    taylor_importance,
    weight_importance,
)
from outpace.accel.experts.calls import record_calls
from outpace.errors import ConfigError, InputError

EXPERTS = Conversion(experts=Experts())


def squared(model: nn.Module, seed: int) -> torch.Tensor:
    return run(model, (seed,)).square().sum()


@pytest.mark.parametrize("cls", ["FluxTransformer2DModel", "Flux2Transformer2DModel", "OvisImageTransformer2DModel"])
def test_scores_are_the_gradient_of_scaling_a_unit(cls: str) -> None:
    model = build(cls)
    scores = taylor_importance(model, [0, 1], squared)
    for site in (find_sites(model)[0], find_sites(model)[-1]):
        dense = site.read()
        for unit in (0, dense.hidden - 1):
            expected = 0.0
            for seed in (0, 1):
                # What leads into the unit, and what leads out of it, each scaled by 1 + x: d loss / d x at 0.
                for part in (lambda d: (d.up_HD, d.gate_HD, d.up_bias_H, d.gate_bias_H), lambda d: (d.down_OH.T,)):
                    rows = [weight[unit] for weight in part(dense) if weight is not None]
                    slopes = []
                    for step in (1e-3, -1e-3):
                        before = [row.clone() for row in rows]
                        for row in rows:
                            row.mul_(1 + step)
                        slopes.append(float(squared(model, seed)) / (2 * step))
                        for row, old in zip(rows, before, strict=True):
                            row.copy_(old)
                    expected += abs(sum(slopes)) / 2
            assert float(scores[site.path][unit]) == pytest.approx(expected, rel=0.05, abs=2e-3)


def test_a_unit_without_a_way_out_scores_nothing_and_is_dealt_last() -> None:
    model = build("DiTTransformer2DModel")
    site = find_sites(model)[0]
    site.read().down_OH[:, 5] = 0.0
    for scores in (taylor_importance(model, [0, 1], squared), weight_importance(model)):
        assert int(scores[site.path].argmin()) == 5 and float(scores[site.path][5]) == 0.0


def test_the_model_is_left_as_it_was() -> None:
    model = build("DiTTransformer2DModel")
    weights = {name: weight.clone() for name, weight in model.named_parameters()}
    first = next(model.parameters())
    first.requires_grad_(True)
    first.grad = torch.ones_like(first)
    taylor_importance(model, [0], squared)
    assert first.requires_grad and torch.equal(first.grad, torch.ones_like(first))
    for name, weight in model.named_parameters():
        assert torch.equal(weight, weights[name])
        assert weight is first or (weight.grad is None and not weight.requires_grad)
    assert not any(weight._post_accumulate_grad_hooks for weight in model.parameters())


def test_calls_of_a_pipeline_are_asked_again() -> None:
    model, tiny = build("SD3Transformer2DModel"), TINY_MODELS["SD3Transformer2DModel"]
    made: list[torch.Tensor] = []

    def several() -> None:
        for seed in range(9):
            made.append(run(model, (seed,), time=100.0 * seed))

    calls = record_calls(model, several, most=4)
    assert [float(call["timestep"]) for call in calls] == [0.0, 400.0, 800.0]
    assert not model._forward_pre_hooks and tiny.cls == "SD3Transformer2DModel"
    again = model(**{**calls[1], "return_dict": False})[0]
    assert torch.equal(again, made[4])
    generator = torch.Generator().manual_seed(0)
    scores = taylor_importance(model, calls, lambda m, call: output_change(m, call, generator))
    assert all(bool((value >= 0).all()) and bool(value.any()) for value in scores.values())


def test_the_output_moves_less_when_unimportant_units_go() -> None:
    model = build("WanTransformer3DModel")
    calls = record_calls(model, lambda: [run(model, (seed,), time=250.0 * seed) for seed in range(4)])
    generator = torch.Generator().manual_seed(0)
    scores = taylor_importance(model, calls * 4, lambda m, call: output_change(m, call, generator))
    shared_only = Conversion(experts=Experts(layout="1S12E0A"))

    def distance(importance: dict[str, torch.Tensor]) -> float:
        return float((run(convert(model, shared_only, importance=importance)) - run(model)).square().mean())

    others = [distance(random_importance(model, seed)) for seed in range(4)]
    assert distance(scores) < min(others)


def test_random_scores_follow_their_seed() -> None:
    model = build("DiTTransformer2DModel")
    one, same, other = (random_importance(model, seed) for seed in (1, 1, 2))
    path = next(iter(one))
    assert torch.equal(one[path], same[path]) and not torch.equal(one[path], other[path])


@pytest.mark.parametrize(
    ("batches", "loss", "says"),
    [
        ([], squared, "at least one batch"),
        ([0], lambda model, seed: squared(model, seed) * float("nan"), "not finite"),
        ([0], lambda model, seed: next(model.parameters()).sum() * torch.ones((), requires_grad=True), "depends on no"),
    ],
)
def test_a_loss_that_says_nothing_is_refused(batches: list[int], loss: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        taylor_importance(build("DiTTransformer2DModel"), batches, loss)


def test_scores_that_do_not_fit_are_refused() -> None:
    model = build("DiTTransformer2DModel")
    scores = first_scores(model)
    path = next(iter(scores))
    with pytest.raises(ConfigError, match=rf"{path} needs 64 scores.*has scores of shape \(63,\)"):
        convert(model, EXPERTS, importance={**scores, path: scores[path][1:]})
    with pytest.raises(ConfigError, match="it has none"):
        convert(model, EXPERTS, importance={})
