"""Profiles: read back as written, used like methods, and never silent about a pipeline they were not tuned for."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from outpace.accel import AdaSpa, GatedTaylor, IntervalTaylor, Method, Profile, Solver, accelerate
from outpace.accel.denoiser import denoisers_of
from outpace.accel.profile import Fingerprint, fingerprint_of, observed_sample
from outpace.errors import ConfigError, InputError, UnknownNameError

FORECASTS = [
    None,
    GatedTaylor(threshold=0.3, gate="budget", order=2),
    GatedTaylor.paper(0.1),
    IntervalTaylor(interval=4, order=2),
]


def run(pipe: Any, steps: int = 8) -> Any:
    generator = torch.Generator().manual_seed(1)
    return pipe([3], generator=generator, num_inference_steps=steps, output_type="np").images


def tuned_on(pipe: Any, *methods: Method, steps: int = 8, **facts: Any) -> Profile:
    return Profile(
        methods=methods,
        steps=steps,
        fingerprint=fingerprint_of(pipe, denoisers_of(pipe)),
        sample=observed_sample(pipe.transformer, lambda: run(pipe, 2)),
        **{"certified": True, **facts},
    )


@given(
    forecast=st.sampled_from(FORECASTS),
    solver=st.sampled_from([None, Solver(), Solver(solver="unipc")]),
    sparse=st.sampled_from([None, AdaSpa(recall=0.9, searches=(0.2, 0.6))]),
    steps=st.integers(1, 1000),
    words=st.text(max_size=10),
)
def test_a_profile_reads_back_as_it_was(
    forecast: Method | None, solver: Method | None, sparse: Method | None, steps: int, words: str
) -> None:
    methods = tuple(m for m in (forecast, solver, sparse) if m is not None)
    profile = Profile(methods=methods, steps=steps, label=words, sample=(4, 8, 8), fingerprint=Fingerprint(dtype=words))
    assert Profile.from_dict(json.loads(json.dumps(profile.to_dict()))) == profile


def test_every_setting_is_written_so_that_defaults_may_change() -> None:
    (written,) = Profile(methods=(GatedTaylor(),), steps=8).to_dict()["methods"]
    assert set(asdict(GatedTaylor())) <= set(written)


def test_a_file_of_it_is_used_like_its_methods(tiny_pipe: Any, tmp_path: Path) -> None:
    method = IntervalTaylor(interval=3, warmup=2)
    path = tuned_on(tiny_pipe, method).save(tmp_path / "deep" / "profile.json")
    with accelerate(tiny_pipe, method):
        expected = run(tiny_pipe)
    for given_as in (path, str(path), Profile.load(path)):
        with accelerate(tiny_pipe, profile=given_as) as handle:
            assert (run(tiny_pipe) == expected).all()
        assert handle.methods == [method] and handle.trace.warnings == []
        assert handle.trace.totals()["forecast"] > 0
    assert [p.name for p in path.parent.iterdir()] == ["profile.json"]


def test_a_profile_of_fewer_steps_alone_watches_them(tiny_pipe: Any) -> None:
    plain = run(tiny_pipe, 6)
    with accelerate(tiny_pipe, profile=tuned_on(tiny_pipe, steps=6)) as handle:
        assert (run(tiny_pipe, 6) == plain).all() and handle.trace.warnings == []
        run(tiny_pipe, 7)
        assert handle.trace.warnings == [
            "the profile was tuned for 6 steps and this run has 7: nothing is promised of it"
        ]


def test_another_size_is_told(tiny_pipe: Any) -> None:
    profile = tuned_on(tiny_pipe, GatedTaylor())
    assert profile.sample == (4, 8, 8)
    with accelerate(tiny_pipe.transformer, profile=profile) as handle, torch.no_grad():
        tiny_pipe.transformer(torch.randn(1, 4, 4, 4), timestep=torch.tensor([500]), class_labels=torch.tensor([1]))
    assert any("4x4x4 (another size" in warning for warning in handle.trace.warnings)


def other_weights(pipe: Any) -> None:
    next(pipe.transformer.parameters()).data.add_(1.0)


def other_scheduler(pipe: Any) -> None:
    from diffusers import DPMSolverMultistepScheduler

    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)


def other_schedule(pipe: Any) -> None:
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, beta_end=0.03)


def other_precision(pipe: Any) -> None:
    pipe.transformer.to(torch.bfloat16)


def other_config(pipe: Any) -> None:
    pipe.transformer.register_to_config(norm_eps=1e-3)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (other_weights, "weights of transformer differs"),
        (other_scheduler, "scheduler: DPMSolverMultistepScheduler instead of DDIMScheduler"),
        (other_schedule, "scheduler config differs"),
        (other_precision, "dtype: bfloat16 instead of float32"),
        (other_config, "config of transformer differs"),
    ],
)
def test_each_difference_is_told_and_nothing_is_refused(tiny_pipe: Any, change: Any, says: str) -> None:
    profile = tuned_on(tiny_pipe, GatedTaylor())
    change(tiny_pipe)
    with accelerate(tiny_pipe, profile=profile) as handle:
        assert any(says in warning for warning in handle.trace.warnings), handle.trace.warnings
        assert says in handle.summary()


def test_where_it_was_loaded_from_and_its_precision_do_not_make_other_weights(tiny_pipe: Any, tmp_path: Path) -> None:
    before = fingerprint_of(tiny_pipe, denoisers_of(tiny_pipe))
    tiny_pipe.save_pretrained(tmp_path)
    again = type(tiny_pipe).from_pretrained(tmp_path)
    assert before.differences(fingerprint_of(again, denoisers_of(again))) == []
    again.transformer.to(torch.bfloat16)
    assert before.differences(fingerprint_of(again, denoisers_of(again))) == ["dtype: bfloat16 instead of float32"]


def test_what_is_not_known_is_not_held_against_a_pipeline(tiny_pipe: Any) -> None:
    with accelerate(tiny_pipe, profile=Profile(methods=(GatedTaylor(),), steps=8, certified=True)) as handle:
        run(tiny_pipe)
    assert handle.trace.warnings == []
    meta = tiny_pipe.transformer.to("meta")
    assert fingerprint_of(meta, [("transformer", meta)]).weights == {}


def test_one_that_is_not_certified_says_so(tiny_pipe: Any) -> None:
    with accelerate(tiny_pipe, profile=tuned_on(tiny_pipe, GatedTaylor(), certified=False)) as handle:
        assert "not certified" in handle.trace.warnings[0]


def test_a_profile_goes_alone(tiny_pipe: Any) -> None:
    profile = tuned_on(tiny_pipe, GatedTaylor())
    for others in ({"preset": "fast"}, {}):
        methods = [] if others else [GatedTaylor()]
        with pytest.raises(ConfigError, match="only one of them"):
            accelerate(tiny_pipe, *methods, profile=profile, **others)


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"kind": "recipe"}, ConfigError, "no profile"),
        ({"version": 2}, ConfigError, "version 2"),
        ({"stepz": 3}, ConfigError, "did you mean 'steps'"),
        ({"steps": 0}, ConfigError, "number of steps"),
        ({"steps": "8"}, ConfigError, "number of steps"),
        ({"methods": {"method": "solver"}}, ConfigError, "list of methods"),
        ({"methods": [{"method": "solvr"}]}, UnknownNameError, "solvr"),
        ({"methods": [{"method": "solver"}, {"method": "solver"}]}, Exception, "only one"),
        ({"fingerprint": {"dtipe": "x"}}, ConfigError, "did you mean 'dtype'"),
        ({"fingerprint": {"weights": 3}}, ConfigError, "weights of a fingerprint"),
    ],
)
def test_files_that_are_no_profiles_are_refused(
    changes: dict[str, Any], error: type, says: str, tmp_path: Path
) -> None:
    path = tmp_path / "profile.json"
    path.write_text(json.dumps({**Profile(methods=(Solver(),), steps=8).to_dict(), **changes}))
    with pytest.raises(error, match=says):
        Profile.load(path)


def test_files_that_cannot_be_read_or_written_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        Profile.load(tmp_path / "none.json")
    (tmp_path / "text.json").write_text("not json")
    with pytest.raises(InputError, match="not JSON"):
        Profile.load(tmp_path / "text.json")
    with pytest.raises(InputError, match="cannot write"):
        Profile(methods=(), steps=8).save(tmp_path / "text.json" / "profile.json")
