"""Every way to draw random numbers in a step of a scheduler is seen, by either way to look."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch
from diffusers.utils.torch_utils import randn_tensor
from torch.nn import functional

from outpace.accel import draws as draws_module
from outpace.accel.clock import Clock
from outpace.accel.draws import DRAWS, DrawsOfFunctions, DrawsOfOperations, can_draw

X = torch.rand(4, 4)
IN_PLACE = ("normal_", "uniform_", "random_", "exponential_", "cauchy_", "log_normal_", "bernoulli_")
DRAWN: dict[str, Callable[[], Any]] = {
    **{name: lambda name=name: getattr(torch, name)(3) for name in ("rand", "randn", "randperm")},
    **{name: lambda name=name: getattr(torch, name)(X) for name in ("rand_like", "randn_like", "bernoulli", "poisson")},
    **{name: lambda name=name: getattr(X.clone(), name)() for name in IN_PLACE},
    "geometric_": lambda: X.clone().geometric_(0.5),
    "randint": lambda: torch.randint(3, (2,)),
    "randint_like": lambda: torch.randint_like(X, 3),
    "normal": lambda: torch.normal(0.0, 1.0, (3,)),
    "normal around": lambda: torch.normal(X, 1.0),
    "multinomial": lambda: torch.multinomial(X, 1),
    "a generator of one's own": lambda: torch.randn(3, generator=torch.Generator()),
    "randn_tensor": lambda: randn_tensor((3,), generator=torch.Generator()),
    "dropout": lambda: functional.dropout(X, 0.5, True),
    "dropout2d": lambda: functional.dropout2d(X[None], 0.5, True),
    "gumbel_softmax": lambda: functional.gumbel_softmax(X),
    "rrelu": lambda: functional.rrelu(X, training=True),
    "a weight's beginning": lambda: torch.nn.init.kaiming_uniform_(X.clone()),
    "a distribution": lambda: torch.distributions.Normal(0.0, 1.0).sample((3,)),
    "an operation": lambda: torch.ops.aten.randn.default([3]),
    "operations of a name": lambda: torch.ops.aten.randn([3]),
}
PLAIN: dict[str, Callable[[], Any]] = {
    "arithmetic": lambda: (1 - X) ** 0.5 @ X.T / X.norm() + X.float().mean(),
    "indexing": lambda: X[torch.tensor([1])].shape,
    "dropout that is off": lambda: functional.dropout2d(X[None], 0.5, False),
    "a generator": lambda: torch.Generator().manual_seed(3),
    "a buffer": lambda: torch.empty_like(X).zero_(),
}


@pytest.mark.parametrize("look", [DrawsOfOperations, DrawsOfFunctions])
@pytest.mark.parametrize("what", [*DRAWN, *PLAIN])
def test_what_draws_is_seen_and_nothing_else(what: str, look: Any) -> None:
    with look() as draws:
        {**DRAWN, **PLAIN}[what]()
    assert draws.seen is (what in DRAWN)


def test_every_operation_that_torch_marks_is_known_by_its_name() -> None:
    drawing = {
        name.split("::")[1].split(".")[0]
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith("aten::") and DRAWS in overload(name).tags
    }
    assert {"randn", "normal_", "dropout", "bernoulli"} <= drawing

    def named(name: str) -> Any:
        return next((getattr(owner, name) for owner in (torch, torch.Tensor) if hasattr(owner, name)), None)

    public = {name: named(name) for name in drawing if callable(named(name))}
    assert len(public) > 20 and [name for name, func in public.items() if not can_draw(func)] == []


def overload(name: str) -> Any:
    """The operation of a qualified name: "aten::normal.Tensor_float"."""
    packet, _, which = name.split("::")[1].partition(".")
    return getattr(getattr(torch.ops.aten, packet), which or "default")


def test_the_steps_of_a_scheduler_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first in every way, the others by their functions; one that has drawn need not be looked at again."""
    looked: list[str] = []
    for name in ("DrawsOfOperations", "DrawsOfFunctions"):
        kind = getattr(draws_module, name)
        made = lambda kind=kind, name=name: looked.append(name) or kind()  # noqa: E731
        monkeypatch.setattr(f"outpace.accel.clock.{name}", made)
    for scheduler, noisy_from in (
        (diffusers.DDIMScheduler(), None),
        (diffusers.EulerAncestralDiscreteScheduler(), 0),
        (ChurnsLate(), 2),
    ):
        looked.clear()
        clock = Clock(lambda: None)
        clock.attach(scheduler)
        scheduler.set_timesteps(5)
        x = torch.ones(1, 4, 4, 4)
        for step, t in enumerate(scheduler.timesteps):
            x = scheduler.step(0.1 * x, t, x).prev_sample
            assert clock.noisy is (noisy_from is not None and step >= noisy_from)
        steps = 5 if noisy_from is None else noisy_from + 1
        assert looked == ["DrawsOfOperations"] + ["DrawsOfFunctions"] * (steps - 1)
        clock.detach()


class ChurnsLate(diffusers.EulerDiscreteScheduler):
    """Adds noise from its third step on."""

    def step(self, *args: Any, **kwargs: Any) -> Any:
        late = self.step_index is not None and self.step_index >= 2
        return super().step(*args, **kwargs, s_churn=1.0 if late else 0.0)
