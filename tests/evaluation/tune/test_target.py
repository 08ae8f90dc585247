"""What a target's words mean, and that nothing else is taken for one."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outpace.errors import ConfigError
from outpace.evaluation.metrics import METRICS
from outpace.evaluation.tune import Clause, Target, parse_target
from outpace.evaluation.tune.target import COSTS, GAINS, parse_clause

NAMES = [name for name, metric in METRICS.items() if metric.kind != "set"]


@pytest.mark.parametrize(
    ("text", "name", "bound"),
    [
        ("psnr>=30", "psnr", 30.0),
        ("PSNR >= 30 dB", "psnr", 30.0),
        (" ssim ≥ 0.98 ", "ssim", 0.98),
        ("ssim>=98%", "ssim", 0.98),
        ("latent-l2<=1e-1", "latent_l2", 0.1),
        ("latency <= 60 %", "time", 0.6),
        ("blocks<=0.5", "blocks", 0.5),
    ],
)
def test_words_and_what_they_mean(text: str, name: str, bound: float) -> None:
    clause = parse_clause(text)
    assert clause.name == name and clause.bound == pytest.approx(bound)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("psnr<=30", "higher is better"),
        ("time>=0.5", "lower is better"),
        ("psrn>=30", "did you mean 'psnr'"),
        ("frechet<=3", "whole sets"),
        ("time<=60", "write 'time<=60%'"),
        ("time<=0", "above 0"),
        ("psnr>30", "cannot be read"),
        ("psnr>=", "cannot be read"),
        ("psnr>=nan", "cannot be read"),
        ("psnr>=30 m", "not counted in 'm'"),
        ("", "cannot be read"),
    ],
)
def test_slips_are_told(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_clause(text)


def test_a_target_has_each_number_once_and_at_least_one() -> None:
    with pytest.raises(ConfigError, match="psnr twice"):
        parse_target(["psnr>=30", "psnr>=40"])
    with pytest.raises(ConfigError, match="nothing to aim at"):
        parse_target([])


@given(st.text(max_size=20))
def test_any_text_is_a_clause_or_a_config_error(text: str) -> None:
    try:
        clause = parse_clause(text)
    except ConfigError:
        return
    assert math.isfinite(clause.bound) and clause.name in [*NAMES, *COSTS, *GAINS]


@given(st.sampled_from([*NAMES, *COSTS]), st.floats(1e-9, 1.0))
def test_a_clause_written_out_reads_back(name: str, bound: float) -> None:
    clause = Clause(name=name, bound=bound)
    assert parse_clause(str(clause)) == clause


@given(st.sampled_from([*NAMES, *COSTS]), st.floats(0.01, 1.0), st.floats(-2.0, 2.0))
def test_margins_say_on_which_side_a_value_is(name: str, bound: float, value: float) -> None:
    clause = Clause(name=name, bound=bound)
    kept = value >= bound if clause.higher else value <= bound
    assert (clause.margin(value) >= 0) is kept
    assert not Target(clauses=(clause,)).missed({name: bound})


def test_what_could_not_be_measured_is_missed() -> None:
    target = parse_target(["psnr>=30", "blocks<=0.5"])
    assert not target.missed({"psnr": 31.0, "blocks": 0.5})
    assert target.missed({"psnr": None, "blocks": 0.4}) and target.missed({"psnr": math.nan, "blocks": 0.4})
    assert target.missed({"psnr": 31.0, "blocks": 0.51}) and target.missed({"psnr": 31.0})


def test_a_speedup_is_the_work_the_other_way_round() -> None:
    for text in ("speedup>=3", "Speedup >= 3x", "speedup≥3.0"):
        assert parse_clause(text) == Clause(name="speedup", bound=3.0)
    target = parse_target(["speedup>=3"])
    assert not target.fidelity, "the most faithful setting that is as fast is sought"
    assert not target.missed({"speedup": 28 / 9}) and target.missed({"speedup": 28 / 10}) and target.missed({})
    for text, says in (("speedup<=3", "higher is better"), ("speedup>=0.5", "1 or more"), ("speedup>=300%", "in '%'")):
        with pytest.raises(ConfigError, match=says):
            parse_clause(text)
