"""The first backend with nothing to say against it runs; one that is named runs or explains itself."""

from __future__ import annotations

import pytest
import torch

from outpace.errors import ConfigError, MissingDependencyError, UnknownNameError
from outpace.kernels.attention import DENSE, MASS, SPARSE
from outpace.kernels.dispatch import OPERATIONS, Backend, Operation, deferred, not_installed


def operation() -> Operation:
    def refuses(x: torch.Tensor) -> str | None:
        return None if x.shape[-1] == 8 else f"width {x.shape[-1]}: has 8"

    return Operation(
        name="doubling",
        backends=[
            Backend(name="absent", run=abs, missing=lambda: "it is not installed: pip install it"),
            Backend(name="narrow", run=lambda x: 2 * x, refuses=refuses),
            Backend(name="slow", run=lambda x: x + x, hesitates=lambda x: "it takes ages"),
            Backend(name="plain", run=lambda x: x * 2),
        ],
    )


def test_the_first_without_an_objection_runs_and_is_recorded() -> None:
    doubling = operation()
    assert doubling.choose(torch.ones(8)).name == doubling.last == "narrow"
    assert doubling.choose(torch.ones(9, dtype=torch.float16)).name == doubling.last == "plain"
    assert doubling.chosen == {("cpu", "float32", 8): "narrow", ("cpu", "float16", 9): "plain"}
    assert doubling.explain(torch.ones(9)) == [
        ("absent", "it is not installed: pip install it"),
        ("narrow", "width 9: has 8"),
        ("slow", "it takes ages"),
        ("plain", None),
    ]


def test_one_asked_for_by_name_runs_even_if_it_hesitates() -> None:
    doubling = operation()
    assert doubling.choose(torch.ones(9), backend="slow").name == doubling.last == "slow"


def test_one_that_cannot_says_why() -> None:
    doubling = operation()
    with pytest.raises(MissingDependencyError, match="'absent' of doubling cannot run here: it is not installed"):
        doubling.choose(torch.ones(8), backend="absent")
    with pytest.raises(ConfigError, match="width 9: has 8"):
        doubling.choose(torch.ones(9), backend="narrow")
    with pytest.raises(UnknownNameError, match="did you mean 'narrow'"):
        doubling.choose(torch.ones(9), backend="narow")
    assert doubling.last is None and not doubling.chosen


def test_where_none_can_every_reason_is_given() -> None:
    doubling = operation()
    doubling.backends.pop()
    with pytest.raises(ConfigError) as caught:
        doubling.choose(torch.ones(9))
    for reason in ("it is not installed", "width 9: has 8", "it takes ages"):
        assert reason in str(caught.value)


def test_the_attention_operations_are_listed_with_a_reference_each() -> None:
    assert [OPERATIONS[name] for name in ("dense attention", "sparse attention", "block mass")] == [DENSE, SPARSE, MASS]
    for each in (DENSE, SPARSE, MASS):
        assert each.names()[-1] == "reference" and len(set(each.names())) == len(each.names())


def test_deferred_imports_at_the_first_call() -> None:
    call = deferred("outpace.kernels.no_such_module", "run")
    with pytest.raises(ModuleNotFoundError):
        call()
    assert deferred("math", "sqrt")(9) == 3.0
    assert not_installed("no_such_package", "pip install it")() == "no_such_package is not installed: pip install it"
    assert not_installed("torch", "pip install torch")() is None
