"""The first backend with nothing to say against it runs; one that is named runs or explains itself."""

from __future__ import annotations

import pytest
import torch

from outpace.errors import ConfigError, MissingDependencyError, UnknownNameError
from outpace.kernels.attention import DENSE, MASS, SPARSE
from outpace.kernels.dispatch import OPERATIONS, Backend, Operation, Unfit, deferred, not_installed
from outpace.kernels.precision import widened, widest


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


class Blocks:
    """An index of blocks, as far as kernels are compiled for it."""

    def __init__(self, query_block: int, key_block: int) -> None:
        self.query_block, self.key_block = query_block, key_block


def test_one_that_gives_up_is_passed_over_for_inputs_of_that_kind_alone() -> None:
    asked: list[str] = []

    def large(x: torch.Tensor, *_: object) -> torch.Tensor:
        asked.append("large")
        if x.shape[-1] > 8 or x.dtype == torch.float16:
            raise Unfit("too little shared memory")
        return 2 * x

    def plain(x: torch.Tensor, *_: object) -> torch.Tensor:
        asked.append("plain")
        return x + x

    doubling = Operation(name="doubling", backends=[Backend(name="large", run=large), Backend(name="plain", run=plain)])

    def ran(*inputs: object, backend: str = "auto") -> list[str]:
        asked.clear()
        assert torch.equal(doubling.run(lambda run: run(*inputs), *inputs, backend=backend), 2 * inputs[0])
        assert doubling.last == asked[-1]
        return list(asked)

    wide, blocks = torch.ones(2, 9), Blocks(64, 64)
    assert ran(torch.ones(2, 8), blocks, True, None) == ["large"]
    assert ran(wide, blocks, True, None) == ["large", "plain"] and ran(wide, blocks, True, None) == ["plain"]
    assert ran(torch.ones(5, 9), Blocks(64, 64), True, None) == ["plain"], "of the same kind, whatever its rows"
    assert doubling.explain(wide, blocks, True, None)[0] == ("large", "too little shared memory")
    for other in (
        (torch.ones(2, 10), blocks, True, None), (torch.ones(2, 8).half(), blocks, True, None),
        (wide, Blocks(64, 32), True, None), (wide, Blocks(32, 64), True, None), (wide, blocks, False, None),
    ):  # fmt: skip
        assert ran(*other) == ["large", "plain"]
    assert ran(torch.ones(2, 8), blocks, True, None) == ["large"]
    with pytest.raises(ConfigError, match="cannot take these inputs: too little shared memory; use"):
        ran(torch.ones(2, 11), backend="large")


def test_what_decides_is_summed_in_the_widest_type_that_a_device_has() -> None:
    assert [widest(torch.device(name)) for name in ("cpu", "cuda", "mps")] == [torch.float64] * 2 + [torch.float32]
    x = torch.tensor([1.0, 0.1], dtype=torch.bfloat16)
    assert widened(x).dtype == torch.float64 and widened(x).tolist() == x.tolist()


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
