"""Looking something up imports no torch: what a command loads, read off sys.modules in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from outpace.accel import FAMILIES, PRESETS
from outpace.accel.estimate import MODELS, flops
from outpace.accel.estimate.counted import counted
from outpace.cli.cards import read_cards, registered, verdict
from outpace.cli.options.model import find_source, folder_of
from outpace.pipelines.pocket.recipes import POCKETS

HEAVY = ("torch", "diffusers", "transformers", "numpy", "scipy", "matplotlib", "PIL")

LOOK = f"""
import sys
sys.argv = ["outpace", *sys.argv[1:]]
from outpace.cli import main
try:
    main()
except SystemExit as end:
    print([end.code, [name for name in {HEAVY!r} if name in sys.modules]], file=sys.stderr)
"""


@pytest.mark.parametrize(
    "words",
    ["--help", "generate --help", "pocket list", "pocket list --json", "methods", "methods gated_taylor", "models list",
     "flops flux.1", "flops dit", "flops wan2.1-14b --json", "estimate list"],
)  # fmt: skip
def test_looking_something_up_loads_nothing_heavy(words: str) -> None:
    ran = subprocess.run([sys.executable, "-c", LOOK, *words.split()], capture_output=True, text=True, check=False)
    assert ran.stderr.strip() == "[0, []]", ran.stderr
    assert ran.stdout


def test_what_is_read_off_the_source_is_what_is_registered() -> None:
    from outpace.models.trials.trial import read_results

    assert read_cards() == registered()
    for name in registered():
        results = read_results(name)
        assert verdict(name) == ("not tried yet" if results is None else results["verdict"])


def test_examples_that_are_written_down_are_the_first_held_out_prompts() -> None:
    assert {name: p.example for name, p in POCKETS.items()} == {
        name: str(p.prompts(1, "held_out")[0]) for name, p in POCKETS.items()
    }


@pytest.mark.parametrize("name", ["dit-xl-2", "wan", "flux"])
def test_what_was_counted_beforehand_is_what_is_counted_now(name: str) -> None:
    source, given = find_source(name)
    assert counted(name, folder_of(name)) == flops(source, **given)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_published_model_is_counted_as_it_is_now(name: str) -> None:
    assert counted(name) == flops(name)


def test_counts_of_another_model_or_another_diffusers_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    from outpace.accel.estimate import counted as room

    assert counted("flux.1") is not None and counted("nothing") is None
    monkeypatch.setattr(room, "described", lambda name, folder: "changed")
    assert counted("flux.1") is None
    monkeypatch.undo()
    monkeypatch.setattr(room, "version", lambda package: "0.1")
    assert counted("flux.1") is None


def test_methods_says_what_each_preset_sets_for_every_family() -> None:
    ran = subprocess.run([sys.executable, "-c", LOOK, "methods", "--json"], capture_output=True, text=True, check=True)
    told = json.loads(ran.stdout)["presets"]
    assert set(told) == set(PRESETS)
    for preset in told.values():
        assert sorted(family for users in preset["sets"].values() for family in users) == sorted(FAMILIES)
        assert all(":" in method for methods in preset["sets"] for method in methods.split(" + "))


def test_methods_spelt_for_a_preset_are_read_back_as_what_it_sets() -> None:
    from outpace.cli.methods import _presets
    from outpace.cli.options.method import parse_combination

    for name, preset in _presets().items():
        for spelt, families in preset["sets"].items():
            assert parse_combination(spelt) == PRESETS[name].methods(families[0])


@pytest.mark.slow
def test_what_a_picture_needs_is_all_that_is_loaded(tmp_path: Path) -> None:
    """diffusers brings torch and transformers; nothing that only other commands use comes along."""
    spare = ("matplotlib", "torchmetrics", "ray", "pandas", "sklearn", "peft", "starlette", "outpace.models")
    look = LOOK.replace(repr(HEAVY), repr(spare))
    words = ["generate", "dit", "--prompt", "3", "--steps", "2", "--device", "cpu", "--out", str(tmp_path / "x.png")]
    ran = subprocess.run([sys.executable, "-c", look, *words], capture_output=True, text=True, check=False)
    assert ran.stderr.strip().endswith("[0, []]"), ran.stderr
