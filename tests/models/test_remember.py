"""What is remembered of models: the rule behind its numbers, what it says of a change, terms whose loss it must see."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from outpace.models import MODELS, create
from outpace.models.numbers import fill, numbers, whole_numbers
from outpace.models.remember import (
    FOLDER,
    GRADIENTS,
    NEAR,
    Spreads,
    cases_of,
    digest,
    distance,
    filled_model,
    given,
    gradient_norms,
    gradients_of,
    remember,
    remembered,
)

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


IDLE = {
    "algoformer": r"places|read\.|before\.",  # learned from by the last loops alone; outputs depend on them
    "craft": r"\.positions\.",  # the toy is too narrow for them: "wide enough for positions"
    "eco_m2f": r"k_proj\.bias|swin\.layernorm|encoder\.gate",  # softmax; unused in transformers; "what it learns"
    "gcab": r"position\.bias|gates\.",  # softmax; gates of no task: "without gates", "two tasks learned"
    "maxim": r"\.weigh\.|stages\.1\.outputs\.[12]",  # a ReLU of one unit, smaller pictures: both in other cases
    "moat": r"\.key\.bias", "s2aformer": r"\.key\.bias", "swin": r"k_proj\.bias", "widenet": r"key\.bias",  # softmax
    "p2at": r"auxiliary\.|refine\.0\.2\.weight",  # "logits of all heads"; a slope of what is never below 0
}  # fmt: skip
"""Numbers that take no part in the output of a toy, and why, or which case holds them instead."""


@pytest.mark.parametrize("name", [name for name in MODELS if MODELS[name].build is not None])
def test_every_number_of_a_toy_takes_part_in_what_is_remembered(name: str) -> None:
    norms = gradient_norms(name)
    idle = [place for place, norm in norms.items() if not norm]
    assert [place for place in idle if not (name in IDLE and re.search(IDLE[name], place))] == []
    assert len(idle) < len(norms) / 2 or name == "craft"
    # the same run answers the check of gradients, which test_models.py leaves to this test
    assert distance(remembered(name)[GRADIENTS], digest(gradients_of(norms))) <= 1e-6


def test_models_that_drop_in_training_are_held_to_where() -> None:
    drops = {path.stem for path in (ROOT / "models").glob("*.py") if "nn.Dropout(" in path.read_text(encoding="utf-8")}
    assert drops and all("where it drops in training" in cases_of(name) for name in drops - {"remember"})


def test_fresh_numbers_are_held_to_how_they_are_drawn() -> None:
    drawn = {"weight": (4000, 0.02, 1e-4), "bias": (8, 0.0, 0.0), "scale": (8, 1.0, 1.0)}
    assert Spreads(drawn).beyond(drawn) == 0
    assert 0 < Spreads({**drawn, "weight": (4000, 0.0203, 3e-4)}).beyond(drawn) < 1
    changes = {"weight": [(4000, 0.024, 1e-4), (4000, 0.02, 5e-3), (4001, 0.02, 1e-4)], "bias": [(8, 0.1, 0.1)],
               "scale": [(8, 1.0, 0.9), (8, 1.1, 1.1)]}  # fmt: skip
    assert all(Spreads({**drawn, part: one}).beyond(drawn) > 1 for part, ones in changes.items() for one in ones)
    assert Spreads(drawn).beyond({"weight": drawn["weight"]}) == math.inf
    assert (
        distance(digest(Spreads(drawn)), digest([1.0])) == math.inf == distance(digest([1.0]), digest(Spreads(drawn)))
    )


def test_making_again_says_what_changed(tmp_path: Path) -> None:
    assert any(line == "the toy: new, 1 outputs" for line in remember("gam", tmp_path))
    assert remember("gam", tmp_path) == []
    stored = json.loads((tmp_path / "gam.json").read_text())
    kept = remembered("gam")  # on another processor, whose last digits differ
    assert stored.keys() == kept.keys() and all(distance(stored[case], kept[case]) <= NEAR for case in kept)
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


@pytest.mark.parametrize("place", ["models/vig.py", "models/activator.py"])
def test_the_loss_of_a_term_is_noticed(mutation: ModuleType, place: str) -> None:
    changes = [change for change in mutation.written() if change.path == place]
    assert changes
    for change in changes:
        told, _ = mutation.tried(change)
        assert told is not None and told.startswith("check "), f"{change.what}: {told}"


@pytest.mark.slow
def test_the_loss_of_every_term_that_was_written_down_is_noticed(mutation: ModuleType) -> None:
    mutation.preload()
    missed = [f"{change.path}: {change.what}" for change in mutation.written() if mutation.tried(change)[0] is None]
    assert not missed


def test_every_term_that_was_written_down_is_in_its_source(mutation: ModuleType) -> None:
    """One that is not is left out of a run, and nobody would see it."""
    assert mutation.moved() == []


def test_changes_are_the_same_for_everyone(mutation: ModuleType) -> None:
    files = [ROOT / "models" / "layers" / "rotary.py", ROOT / "kernels" / "linear_attention" / "gated.py"]
    first, again = (mutation.chosen(files, 8, 0) for _ in range(2))
    assert first == again and len(first) >= 8 and mutation.chosen(files, 8, 1) != first
    assert all(change.source and change.line for change in first)
    assert "vig" in mutation.dependents(files[1]) and mutation.dependents(ROOT / "models" / "vig.py") == ["vig"]
