"""What is remembered of models: the rule behind its numbers, what it says of a change, terms whose loss it must see."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from outpace.models import MODELS, create
from outpace.models.numbers import fill, numbers, whole_numbers
from outpace.models.remember import FOLDER, cases_of, digest, distance, filled_model, given, remember, remembered

torch.set_num_threads(1)
ROOT = Path(__file__).resolve().parents[2]


def test_the_rule_gives_the_same_numbers_everywhere() -> None:
    assert numbers((4,), 3).tolist() == [
        0.4825936595443636, -0.24292662576772273, 0.5223479664418846, 0.5534659491386265,
    ]  # fmt: skip
    x = numbers((10_000,))
    assert -1 <= float(x.min()) < -0.999 and 0.999 < float(x.max()) < 1
    assert abs(float(x.mean())) < 0.02 and abs(float(x.var()) - 1 / 3) < 0.01
    assert abs(float((x[1:] * x[:-1]).mean())) < 0.01 and not torch.equal(numbers((5,), 1), numbers((5,), 2))
    assert sorted(set(whole_numbers((1000,), 7).tolist())) == list(range(7))


def test_nothing_is_hidden_behind_a_zero() -> None:
    for name in ("hornet", "vig", "styleswin", "gcab", "p2at", "raptor"):
        model = fill(create(name, "toy").double())
        for place, parameter in model.named_parameters():
            value = parameter.detach()
            assert float(value.abs().max()) > 1e-2, f"{name}: {place}"
            assert value.numel() == 1 or float(value.min()) < float(value.max()), f"{name}: {place}"


def test_every_model_is_remembered_and_nothing_else_is() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == set(MODELS)
    for name in MODELS:
        assert remembered(name).keys() == cases_of(name).keys() and cases_of(name)


def test_making_again_says_what_changed(tmp_path: Path) -> None:
    assert any(line == "the toy: new, 1 outputs" for line in remember("gam", tmp_path))
    assert remember("gam", tmp_path) == []
    stored = json.loads((tmp_path / "gam.json").read_text())
    assert stored == remembered("gam")
    stored["the toy"][0]["values"][3] += 1e-5 * stored["the toy"][0]["size"]
    stored["of old"] = stored["the toy"]
    (tmp_path / "gam.json").write_text(json.dumps(stored))
    assert remember("gam", tmp_path) == ["of old: gone", "the toy: 1e-05 from what it was (at most 1e-07)"]


def test_what_differs_is_seen() -> None:
    out = given("gam")
    stored = digest(out)
    assert distance(stored, digest(out)) <= 1e-11
    other = out.clone()
    other[1, 7, 3] += 1e-3  # none of the numbers that are stored as they are
    assert distance(stored, digest(other)) > 1e-7
    assert distance(stored, digest(out.clone().fill_(math.nan))) == math.inf
    assert distance(stored, digest(out[:1])) == math.inf and distance(stored, digest([out, out])) == math.inf
    assert distance(digest("one"), digest("two")) == math.inf and distance(digest(["a", 1]), digest(["a", 1])) == 0
    assert filled_model("gam").training is False


@pytest.fixture(scope="module")
def mutation() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mutation", ROOT / "benchmarks" / "mutation.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutation"] = module
    spec.loader.exec_module(module)
    return module


LOST = [
    ("hornet", "self.mixer(self.norm1(x_BCYX))", "self.mixer(x_BCYX)"),
    ("hornet", "self.layers(x_BCYX).mean((2, 3))", "self.layers(x_BCYX).amax((2, 3))"),
    ("vig", "* (1 - a)", "* a"),
    ("craft", "self.fusion(self.low(x_BCYX), self.high(x_BCYX))", "self.fusion(self.high(x_BCYX), self.low(x_BCYX))"),
    ("dlgsanet", "self.temperature_H, normaliser", "torch.ones_like(self.temperature_H), normaliser"),
    ("gam", "b.sigmoid() * self.recall(h)", "self.recall(h)"),
    ("activator", "self.norm(F.gelu(self.gate(x)))", "F.gelu(self.gate(x))"),
    ("maxim", "(self.mix(self.gate_norm(v)) + 1)", "self.mix(self.gate_norm(v))"),
    ("mossformer", "x = x + self.position_scale * _positions(x.shape[2], x.shape[1], x).mT", "pass"),
    ("liger", "self.share * remembered", "remembered"),
    ("layers/mixers", "rotate(k, start),", "k,"),
    ("layers/mixers", "F.normalize(k, dim=-1),", "k,"),
]
"""Terms whose loss nothing noticed before models were remembered."""


@pytest.mark.parametrize(
    ("place", "term", "without"),
    [pytest.param(*lost, marks=() if lost[0] in ("vig", "activator") else pytest.mark.slow) for lost in LOST],
)
def test_the_loss_of_a_term_is_noticed(mutation: ModuleType, place: str, term: str, without: str) -> None:
    path = ROOT / "models" / f"{place}.py"
    source = path.read_text(encoding="utf-8")
    assert source.count(term) == 1, f"{place} has no longer one '{term}'"
    told, _ = mutation.tried(mutation.Change(f"models/{place}.py", 0, "a term lost", source.replace(term, without)))
    assert told is not None and told.startswith("check "), told


def test_changes_are_the_same_for_everyone(mutation: ModuleType) -> None:
    files = [ROOT / "models" / "layers" / "rotary.py", ROOT / "kernels" / "linear_attention" / "gated.py"]
    first, again = (mutation.chosen(files, 8, 0) for _ in range(2))
    assert first == again and len(first) >= 8 and mutation.chosen(files, 8, 1) != first
    assert all(change.source and change.line for change in first)
    assert "vig" in mutation.dependents(files[1]) and mutation.dependents(ROOT / "models" / "vig.py") == ["vig"]
