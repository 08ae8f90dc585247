"""No float64 on a device that has none: who asks for it promises it, or makes it on the CPU."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from outpace.kernels import precision
from outpace.kernels.quantised import quantise, quantised_linear, table_activation, table_layer_norm, table_softmax
from outpace.models.layers.generation import drawn
from outpace.models.massive import ratio
from outpace.models.phases import dynamics

ROOT = Path(__file__).resolve().parent.parent

ON_THE_CPU = {
    "accel/levels.py": "a schedule, brought to the CPU first",
    "evaluation/meter.py": "wall times",
    "evaluation/peers/spectrum.py": "steps of a run",
    "models/chaos.py": "made on the CPU, as data",
    "models/gtrxl.py": "a table made with the model",
    "models/layers/mixers.py": "a table made with the model",
    "models/massive.py": "curves fitted to numbers",
    "models/mossformer.py": "a table made with the model",
    "models/numbers.py": "made on the CPU, as data",
    "models/predformer.py": "a table made with the model",
    "models/remember.py": "what is stored of models, made on the CPU",
    "models/scan_snap.py": "made on the CPU, as data",
    "outpace/cli/calibration.py": "pictures, brought to the CPU",
    "pipelines/ladine/scheduler.py": "a schedule",
    "pipelines/pocket/dit.py": "a schedule",
    "pipelines/pocket/training.py": "a sum over processes on the CPU",
    "pipelines/published.py": "weights, as read from a file",
}
"""Files that make float64 where nothing of the user's lies, and what for."""


def asks(node: ast.AST) -> bool:
    """Whether this is `x.double()` of a tensor or `torch.float64`."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return node.func.attr == "double" and not node.args
    return isinstance(node, ast.Attribute) and node.attr == "float64" and ast.unparse(node.value) == "torch"


def uses() -> Iterator[tuple[str, str]]:
    """File and function of every use but in truths for tests, which say in their docstrings that they are float64."""
    for folder in ("accel", "kernels", "models", "pipelines", "evaluation", "outpace"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if path.name in ("reference.py", "precision.py") or {"checks", "cases", "trials"} & set(path.parts):
                continue
            tree = ast.parse(path.read_text(encoding="utf-8"))
            promised = {
                id(inner)
                for outer in ast.walk(tree)
                if isinstance(outer, ast.Compare)  # asks what a tensor is
                or (isinstance(outer, ast.FunctionDef) and "float64" in (ast.get_docstring(outer) or ""))
                for inner in ast.walk(outer)
            }
            for node in ast.walk(tree):
                if asks(node) and id(node) not in promised:
                    yield name, f"line {getattr(node, 'lineno', '?')}: {ast.unparse(node)}"


def test_nobody_asks_a_device_for_float64() -> None:
    found = list(uses())
    assert not [place for place in found if place[0] not in ON_THE_CPU], "see kernels/precision.py: widened, widest"
    assert {name for name, _ in found} == set(ON_THE_CPU), "a file that asks no more needs no reason"


class NoFloat64(TorchDispatchMode):
    """Stands for a device without: a tensor of float64 is an error."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (list, tuple)) else (out,):
            if isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float64:
                raise TypeError("this device has no float64")
        return out


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def quantised(x: torch.Tensor, block: int | None = 16):  # type: ignore[no-untyped-def]
    return quantise(x, bits=8, block=block, symmetric=True, power_of_two=True)


OPERATIONS: dict[str, Callable[[], torch.Tensor]] = {
    "linear, in blocks": lambda: quantised_linear(
        numbers(5, 64), quantise(numbers(7, 64), bits=8, block=16), numbers(7), bits=8
    ),
    "linear, one scale": lambda: quantised_linear(numbers(5, 64), quantise(numbers(7, 64), bits=8, block=None), bits=8),
    "activation": lambda: table_activation(quantised(numbers(5, 64))).dequantised(),
    "softmax": lambda: table_softmax(quantised(numbers(5, 64))).dequantised(),
    "layer norm": lambda: table_layer_norm(quantised(numbers(5, 64)), numbers(64), numbers(64)).dequantised(),
    "drawing tokens": lambda: drawn(numbers(2, 9), 0.7, torch.Generator().manual_seed(1)).float(),
    "massive activations": lambda: torch.tensor(ratio(numbers(2, 5, 8))),
    "dynamics over depth": lambda: torch.tensor(dynamics([numbers(2, 5, 8) * k for k in (1, 2, 3)]).to_the_end),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_same_comes_out_without(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = OPERATIONS[name]()
    monkeypatch.setattr(precision, "WITHOUT_FLOAT64", {"cpu"})
    with NoFloat64():
        found = OPERATIONS[name]()
    # A code may come out one step off, of 127 to the largest.
    assert (found - exact).abs().max() <= exact.abs().max() / 100
    assert (found != exact).float().mean() <= 0.05 or (found - exact).abs().max() <= 1e-5 * exact.abs().max()
