"""The settings of AdaSpa: bad ones are one clear line each, good ones survive files and the command line."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from larger import adaspa
from tiny import TinyPipeline

from outpace.accel import METHODS, AdaSpa, GatedTaylor, accelerate
from outpace.accel.methods import Method, settings_help
from outpace.accel.methods.adaspa import BLOCKS, TARGETS
from outpace.cli.options.method import parse_method
from outpace.errors import ConfigError, ConflictError, InputError, OutpaceError


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"recall": 0}, "recall must be above 0, not 0"),
        ({"recall": 1.5}, "recall must be a number from 0 to 1, not 1.5"),
        ({"recall": float("nan")}, "recall must be a number"),
        ({"recall": True}, "recall must be a number"),
        ({"recall": "0.9"}, "recall must be a number"),
        ({"sparsity": 1}, "sparsity 1 would leave nothing to attend to"),
        ({"sparsity": -0.1}, "sparsity must be a number from 0 to 1"),
        ({"density": 0.0}, "density must be above 0"),
        ({"density": 1.1}, "density must be a number from 0 to 1"),
        ({"error": 0}, "error must be above 0"),
        ({"error": float("inf")}, "error must be a number"),
        ({"recall": 0.9, "sparsity": 0.8}, "give one target, not recall and sparsity"),
        ({"density": 0.5, "error": 0.1}, "give one target, not density and error"),
        ({"per": "layer"}, "per must be one of row, head, not 'layer'"),
        ({"least": 0.6, "most": 0.5}, "most must be above 0 and at least 0.6, not 0.5"),
        ({"most": 0.0}, "most must be above 0"),
        ({"least": -1}, "least must be a number from 0 to 1"),
        ({"searches": ()}, "searches must list at least one share"),
        ({"searches": "0.1"}, "searches must list at least one share"),
        ({"searches": None}, "searches must list at least one share"),
        ({"searches": (0.5, 0.1)}, "searches must rise"),
        ({"searches": (0.5, 0.5)}, "searches must rise"),
        ({"searches": (0.1, 1.0)}, "a search at the end of the run would be of no use"),
        ({"searches": (0.1, "x")}, "searches must be a number"),
        ({"searches": (-0.1,)}, "searches must be a number"),
        ({"slack": -0.1}, "slack must be a number"),
        ({"drift": -1}, "drift must be a number"),
        ({"min_gain": 1.5}, "min_gain must be a number from 0 to 1"),
        ({"most_searches": 0}, "most_searches must be a whole number >= 1"),
        ({"block": 0}, "block must be one of 16, 32, 64, 128 or (128, 64), not 0"),
        ({"block": 48}, "block must be one of 16, 32, 64, 128 or (128, 64), not 48"),
        ({"block": 64.0}, "block must be one of 16, 32, 64, 128"),
        ({"block": "64"}, "block must be one of 16, 32, 64, 128"),
        ({"min_tokens": 0}, "min_tokens must be a whole number >= 1"),
        ({"head_adaptive": 1}, "head_adaptive must be true or false"),
        ({"fresh": "no"}, "fresh must be true or false"),
        ({"tile": None}, "tile must be true or false"),
        ({"backend": None}, "backend must be a name"),
    ],
)
def test_bad_settings_are_one_clear_line(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(reason)) as caught:
        AdaSpa(**given)
    assert "\n" not in str(caught.value)


def test_an_unknown_setting_is_named_with_the_one_that_was_meant() -> None:
    with pytest.raises(ConfigError, match=r"adaspa has no setting 'recal'.*did you mean 'recall'"):
        Method.from_dict({"method": "adaspa", "recal": 0.9})


def test_an_unknown_backend_is_refused_before_anything_is_touched() -> None:
    pipe = TinyPipeline("WanTransformer3DModel")
    with pytest.raises(ConfigError, match=r"backend must be auto or one of .*torch.*, not 'tritno'"):
        accelerate(pipe, AdaSpa(backend="tritno"))
    assert all(module._compiled_call_impl is None for module in pipe.transformer.modules())
    assert "set_timesteps" not in vars(pipe.scheduler)


def test_two_of_a_kind_are_refused_and_a_forecast_is_welcome() -> None:
    pipe = TinyPipeline("WanTransformer3DModel")
    with pytest.raises(ConflictError, match="adaspa and adaspa both take the attention"):
        accelerate(pipe, AdaSpa(), AdaSpa(recall=0.8))
    accelerate(pipe, AdaSpa(), GatedTaylor()).restore()


def test_what_is_in_force() -> None:
    assert (AdaSpa().target.name, AdaSpa().target.value) == ("recall", 0.99)
    for name in TARGETS:
        target = AdaSpa(**{name: 0.5}).target
        assert (target.name, target.value) == (name, 0.5)
    paper = AdaSpa.paper(0.8)
    assert (paper.sparsity, paper.searches, paper.fresh, paper.tile, paper.head_adaptive) == (
        0.8,
        (0.2, 0.6),
        False,
        False,
        True,
    )
    assert (paper.slack, paper.drift) == (0.0, 0.0), "the paper searches by its schedule only"


@pytest.mark.parametrize(
    ("method", "exact"),
    [
        (AdaSpa(recall=1.0), True),
        (AdaSpa(recall=1), True),
        (AdaSpa(sparsity=0.0), True),
        (AdaSpa(density=1.0), True),
        (AdaSpa(), False),
        (AdaSpa(recall=0.99), False),
        (AdaSpa(sparsity=0.5), False),
        (AdaSpa(error=1.0), False),
    ],
)
def test_which_settings_are_exact(method: AdaSpa, exact: bool) -> None:
    assert method.exact == exact


@st.composite
def good_settings(draw: st.DrawFn) -> dict[str, Any]:
    share = st.floats(0.01, 0.99)
    target = draw(st.sampled_from([*TARGETS, None]))
    least, most = sorted([draw(share), draw(share)])
    return {
        **({target: draw(share)} if target else {}),
        "per": draw(st.sampled_from(["row", "head"])),
        "head_adaptive": draw(st.booleans()),
        "least": least,
        "most": most,
        "searches": tuple(sorted(draw(st.sets(st.floats(0.0, 0.99), min_size=1, max_size=4)))),
        "fresh": draw(st.booleans()),
        "slack": draw(st.floats(0.0, 1.0)),
        "drift": draw(st.floats(0.0, 5.0)),
        "most_searches": draw(st.integers(1, 9)),
        "block": draw(st.sampled_from(BLOCKS)),
        "tile": draw(st.booleans()),
        "min_tokens": draw(st.integers(1, 10**6)),
        "min_gain": draw(st.floats(0.0, 1.0)),
        "backend": draw(st.sampled_from(["auto", "torch"])),
    }


@settings(max_examples=60, deadline=None)
@given(good_settings())
def test_settings_survive_a_file_and_the_command_line(given: dict[str, Any]) -> None:
    method = AdaSpa(**given)
    assert Method.from_dict(method.to_dict()) == method
    assert Method.from_dict(json.loads(json.dumps(method.to_dict()))) == method

    def spelled(value: Any) -> str:
        return "/".join(map(repr, value)) if isinstance(value, tuple) else str(value)

    text = ",".join(f"{name}={spelled(value)}" for name, value in given.items())
    assert parse_method(f"adaspa:{text}") == method


def test_defaults_need_no_words() -> None:
    assert AdaSpa().to_dict() == {"method": "adaspa", "version": 1}
    assert Method.from_dict({"method": "adaspa"}) == AdaSpa()
    assert parse_method("adaspa") == AdaSpa()


@pytest.mark.parametrize("searches", [[0.1, 0.5], (0.1, 0.5)])
def test_searches_may_be_a_list_or_a_tuple(searches: Any) -> None:
    assert AdaSpa(searches=searches).searches == (0.1, 0.5)


@pytest.mark.parametrize("share", [0.2, 0])
def test_one_search_needs_no_list(share: Any) -> None:
    assert AdaSpa(searches=share).searches == (float(share),)
    assert parse_method(f"adaspa:searches={share}").searches == (float(share),)


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        ("adaspa:recall=2", ConfigError, "recall must be a number from 0 to 1"),
        ("adaspa:searches=0.1,0.5", InputError, "cannot read '0.5'"),
        ("adaspa:searches=0.5/0.1", ConfigError, "searches must rise"),
        ("adaspa:searches=soon", ConfigError, "searches must list"),
        ("adaspa:recall=0.9/0.8", ConfigError, "recall must be a number"),
        ("adaspa:block=10", ConfigError, "block must be one of"),
    ],
)
def test_slips_on_the_command_line_are_named(text: str, kind: type[OutpaceError], says: str) -> None:
    with pytest.raises(kind, match=says):
        parse_method(text)


def test_every_setting_is_explained() -> None:
    rows = {name: text for name, _, _, text in settings_help(METHODS["adaspa"])}
    assert set(rows) == {field.name for field in dataclasses.fields(AdaSpa)}
    assert all(len(text) > 20 for text in rows.values())


def test_a_trace_with_searches_is_plain_data() -> None:
    pipe = TinyPipeline("WanTransformer3DModel")
    with accelerate(pipe, adaspa(recall=0.6, slack=0.5)) as run:
        pipe(steps=12)
    data = json.loads(json.dumps(run.trace.as_dict()))
    assert Method.from_dict(data["methods"][0]) == run.methods[0]
    assert len(data["attention"]["searches"]) == data["attention"]["totals"]["searches"] == 2 * 4
    assert data["attention"]["totals"]["index_bytes"] > 0
    text = run.summary()
    assert "attention over 32 tokens, 4 layers x 2 heads: dense 8, mass 8, sparse 40" in text
    run.trace.clear()
    assert not run.trace.attention.calls
    assert not run.trace.attention.searches
