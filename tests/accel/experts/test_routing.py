"""Routers: gates, how many experts are active, and what watching them says."""

from __future__ import annotations

import pytest
import torch
from dense_models import build, middle, run

from outpace.accel.experts import (
    Conversion,
    ExpertFeedForward,
    Experts,
    convert,
    find_experts,
    find_sites,
    set_active,
    watch,
)
from outpace.errors import ConfigError, MeasurementError

X = torch.randn(3, 7, 16, generator=torch.Generator().manual_seed(5))


def layer(**settings: str) -> ExpertFeedForward:
    site = find_sites(build("DiTTransformer2DModel"))[0]
    return ExpertFeedForward(site.read(), torch.arange(64), Experts(**settings))


def test_gates_by_hand() -> None:
    tokens = X.reshape(-1, 16)
    for scores in ("softmax", "sigmoid"):
        plain = layer(scores=scores)
        logits = tokens @ plain.router.weight.T
        chances = logits.softmax(-1) if scores == "softmax" else logits.sigmoid()
        best = chances.sort(-1, descending=True)
        index, gates = plain.route(tokens)
        assert torch.equal(index, best.indices[:, :2]) and torch.allclose(gates, best.values[:, :2], atol=1e-6)
        plain.scaling = "normalize"
        assert torch.allclose(plain.route(tokens)[1], gates / gates.sum(-1, keepdim=True))
        plain.scaling = "experts"
        assert torch.allclose(plain.route(tokens)[1], 12 * gates)


@pytest.mark.parametrize("active", [0, 1, 2, 12])
def test_a_layer_is_its_shared_expert_and_its_chosen_ones(active: int) -> None:
    made = layer()
    made.active = active
    expected = made.shared(X) + made.bias if made.shared is not None else 0
    index, gates = made.route(X.reshape(-1, 16))
    dense = find_sites(build("DiTTransformer2DModel"))[0].read()
    _, units = made.layout.deal(torch.arange(64))
    parts = torch.stack([dense.take(chosen)(X.reshape(-1, 16)) for chosen in units], 1)
    chosen = torch.gather(parts, 1, index[..., None].expand(-1, -1, 16))
    expected = expected + (gates[..., None] * chosen).sum(1).reshape(X.shape)
    assert torch.allclose(made(X), expected, atol=1e-5)


def test_without_a_shared_expert_the_bias_is_still_added() -> None:
    made = layer(layout="0S8E0A")
    assert made.shared is None and made.bias is not None
    assert torch.allclose(made(X), made.bias.expand(X.shape))


def test_activity_changes_at_any_time() -> None:
    model = convert(build("FluxTransformer2DModel"), Conversion(experts=Experts()))
    outputs = {}
    for active in (0, 1, 2, 12, "all"):
        set_active(model, active)
        outputs[active] = run(model)
    set_active(model, 2)
    assert torch.equal(run(model), outputs[2])
    for first, second in ((0, 1), (1, 2), (2, 12), (12, "all")):
        assert not torch.equal(outputs[first], outputs[second])
    for wrong in (13, -1, "some"):
        with pytest.raises(ConfigError, match=r"0 to 12 or 'all', not"):
            set_active(model, wrong)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="has no experts; convert it first"):
        set_active(build("FluxTransformer2DModel"), 1)


def test_watching_tells_how_evenly_experts_are_used() -> None:
    dense = build("FluxTransformer2DModel")
    model = convert(dense, Conversion(experts=Experts(layout="1S4E2A"), groups=(middle(dense),)))
    with watch(model) as routing:
        run(model)
        run(model, time=100.0)
    assert set(routing.load()) == {*find_experts(model), "blocks 2-3"}
    for loads in routing.load().values():
        assert sum(loads) == pytest.approx(len(loads)) and min(loads) >= 0
    assert {len(shares) for name, shares in routing.shares.items() if name.startswith("transformer")} == {2}
    assert all(layer.listener is None for layer in find_experts(model).values())


def test_the_balance_loss_is_one_where_all_are_used_alike_and_grows_where_one_is() -> None:
    made = layer(layout="1S4E1A")
    model = torch.nn.Sequential(made)
    with watch(model) as even, torch.enable_grad():
        made.router.weight.data = torch.eye(4, 16)
        made(torch.eye(4, 16) * 3)  # each token likes another expert
    assert float(even.balance_loss()) == pytest.approx(1.0)
    made.router.requires_grad_(True)
    with watch(model) as uneven, torch.enable_grad():
        made(torch.eye(4, 16)[:1].expand(4, 16) * 3)
        uneven.balance_loss().backward()
    assert float(uneven.balance_loss()) > 2
    assert made.router.weight.grad is not None
    before = uneven.balance_loss().item()
    made.router.weight.data -= made.router.weight.grad
    with watch(model) as better:
        made(torch.eye(4, 16)[:1].expand(4, 16) * 3)
    assert float(better.balance_loss()) < before


def test_a_watch_that_saw_nothing_has_no_loss() -> None:
    model = convert(build("DiTTransformer2DModel"), Conversion(experts=Experts()))
    with watch(model) as routing:
        pass
    with pytest.raises(MeasurementError, match="no router was asked"):
        routing.balance_loss()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"scores": "hard"}, "scores must be one of softmax, sigmoid"),
        ({"scaling": "k"}, "scaling must be one of none, normalize, experts"),
        ({"layout": "12E2A"}, "is no layout"),
    ],
)
def test_settings_are_checked(settings: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Experts(**settings)
