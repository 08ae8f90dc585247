"""Contenders asked for one by one: what they are called, of which kind, on which curve."""

from __future__ import annotations

import pytest

from outpace.cli.contenders.labels import file_name, kind_of, label_of, shared_settings, varied_settings
from outpace.cli.options.method import parse_combination, split_combination
from outpace.errors import OutpaceError


def told(*texts: str) -> list[tuple[str, str, str]]:
    asked = [parse_combination(text) for text in texts]
    shared = shared_settings(asked)
    return [
        (kind_of(m), label_of(m, without=shared), label_of(m, without=shared, varied=varied))
        for m, varied in zip(asked, varied_settings(asked), strict=True)
    ]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("adaspa", ["adaspa"]),
        ("threshold=0.2+adaspa:recall=0.9", ["threshold=0.2", "adaspa:recall=0.9"]),
        ("adaspa:recall=9e-1 + gated_taylor", ["adaspa:recall=9e-1", "gated_taylor"]),
        ("solver:solver=dpm++", ["solver:solver=dpm++"]),
        ("solver:solver=dpm+++adaspa:drift=1e+3", ["solver:solver=dpm++", "adaspa:drift=1e+3"]),
        ("solver:solver=dpm++ + threshold=1", ["solver:solver=dpm++", "threshold=1"]),
    ],
)
def test_a_plus_before_a_name_parts_methods(text: str, parts: list[str]) -> None:
    assert split_combination(text) == parts


def test_those_that_differ_in_one_setting_form_a_curve() -> None:
    found = told("adaspa:recall=0.8", "adaspa:recall=0.9", "adaspa:sparsity=0.8", "threshold=0.2+adaspa:recall=0.9")
    assert found == [
        ("sparse", "AdaSpa, recall 0.8", "AdaSpa, recall"),
        ("sparse", "AdaSpa, recall 0.9", "AdaSpa, recall"),
        ("sparse", "AdaSpa, sparsity 0.8", "AdaSpa, sparsity 0.8"),
        ("gated+sparse", "AdaSpa, recall 0.9 on gated 0.2", "AdaSpa, recall 0.9 on gated 0.2"),
    ]


def test_static_patterns_and_calibrated_densities_are_called_by_name() -> None:
    found = told("static_sparsity:density=0.5", "static_sparsity:density=0.3", "adaspa:schedule=0..1:ad-ga")
    assert found == [
        ("sparse-static", "static, density 0.5", "static, density"),
        ("sparse-static", "static, density 0.3", "static, density"),
        ("sparse", "AdaSpa, calibrated", "AdaSpa, calibrated"),
    ]
    (both,) = told("scheduled_taylor:speedup=2+adaspa:recall=0.9")
    assert both[0] == "scheduled+sparse"


def test_a_second_setting_parts_curves_and_a_shared_one_is_not_repeated() -> None:
    texts = [f"adaspa:recall={r},per={per},block=32" for r in (0.8, 0.9, 0.95) for per in ("row", "head")]
    found = told(*texts)
    assert len({label for _, label, _ in found}) == 6 and not any("block" in label for _, label, _ in found)
    assert {curve for _, _, curve in found} == {"AdaSpa, recall", "AdaSpa, recall, per head"}


def test_a_default_is_named_by_its_value() -> None:
    assert told("adaspa")[0][1] == "AdaSpa, recall 0.99"
    assert told("gated_taylor")[0][:2] == ("gated", "gated 0.1")
    assert told("solver+threshold=0.3")[0][0] == "gated+solver" and told("solver")[0][0] == "solver"
    assert told("interval_taylor:interval=3")[0] == ("interval", "interval 3", "interval 3")


def test_names_are_fit_for_files() -> None:
    assert file_name("threshold=0.2 + adaspa:recall=0.9,per=head") == "threshold-0.2-+-adaspa-recall-0.9-per-head"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("adaspa:recall=0", "recall must be above 0"),
        ("adaspa+adaspa:recall=0.9", "both take the attention"),
        ("adspa:recall=0.9", "did you mean 'adaspa'"),
        ("adaspa:recal=0.9", "did you mean 'recall'"),
    ],
)
def test_slips_are_answered(text: str, says: str) -> None:
    with pytest.raises(OutpaceError, match=says):
        parse_combination(text)
