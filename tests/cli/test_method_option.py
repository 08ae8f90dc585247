"""`--method` as people type it, and as nobody should."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outpace.cli.options.method import literal, parse_method, split_method
from outpace.errors import ConfigError, InputError, OutpaceError, UnknownNameError


def test_name_alone_means_its_defaults() -> None:
    assert split_method("solver") == ("solver", {})


def test_settings_alone_belong_to_the_gated_method() -> None:
    assert split_method("threshold=0.2, order=1") == ("gated_taylor", {"threshold": 0.2, "order": 1})


def test_name_and_settings() -> None:
    method = parse_method("gated_taylor:threshold=0.25,gate=paper,order=none,correct=false")
    assert method.to_dict() == {
        "method": "gated_taylor",
        "version": 1,
        "threshold": 0.25,
        "gate": "paper",
        "correct": False,
    }


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        ("threshold=-1", ConfigError, "threshold"),
        ("threshold=nan", ConfigError, "threshold"),
        ("threshold=inf", ConfigError, "threshold"),
        ("threshold=lots", ConfigError, "threshold"),
        ("threshold=true", ConfigError, "threshold"),
        ("order=9", ConfigError, "order"),
        ("order=1.5", ConfigError, "order"),
        ("gate=maybe", ConfigError, "budget"),
        ("treshold=0.1", ConfigError, "did you mean 'threshold'"),
        ("gated_tailor:order=1", UnknownNameError, "did you mean 'gated_taylor'"),
        ("interval_taylor:interval=0", ConfigError, "interval"),
        ("solver:solver=euler", ConfigError, "unipc"),
        ("threshold=0.1,threshold=0.2", InputError, "twice"),
        ("gated_taylor:threshold", InputError, "KEY=VALUE"),
        ("gated_taylor:=3", InputError, "KEY=VALUE"),
        (":order=1", InputError, "names no method"),
        ("", InputError, "names no method"),
    ],
)
def test_slips_are_named(text: str, kind: type[OutpaceError], says: str) -> None:
    with pytest.raises(kind, match=says):
        parse_method(text)


@given(st.text(max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_method_or_a_clear_error(text: str) -> None:
    try:
        method = parse_method(text)
    except OutpaceError as error:
        assert len(str(error)) > 10
    else:
        assert method.from_dict(method.to_dict()) == method


KEYS = st.sampled_from(["threshold", "order", "gate", "warmup", "max_skips", "coordinate", "exact", "nonsense"])
VALUES = st.one_of(
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(["budget", "paper", "true", "none", "sigma", "1e400", "-0", "0x10", "١"]),
)


@given(st.lists(st.tuples(KEYS, VALUES), min_size=1, max_size=5))
@settings(max_examples=300, deadline=None)
def test_any_settings_are_accepted_in_range_or_refused(pairs: list[tuple[str, str]]) -> None:
    text = "gated_taylor:" + ",".join(f"{key}={value}" for key, value in pairs)
    try:
        method = parse_method(text)
    except (ConfigError, InputError):
        return
    for key, value in pairs:
        assert getattr(method, key) == literal(value)
