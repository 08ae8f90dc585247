"""A real pipeline under strangers' orders: mixed dials in one call, and each picture as it would be alone."""

from __future__ import annotations

import io
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import outpace
from outpace.accel.methods import Method
from outpace.errors import ConfigError, InputError
from outpace.pipelines.load import load_pipeline, run_pipeline
from outpace.serve.batches import Abandoned
from outpace.serve.company import Ticks, pads_alike, token_counts
from outpace.serve.engine import Engine, EngineSettings
from outpace.serve.orders import Made, Order

STEPS = 16


def nothing(step: int, steps: int) -> None:
    """Whom nobody watches."""


@pytest.fixture(scope="module")
def engine():
    engine = Engine(EngineSettings(pipeline="dit"))
    yield engine
    engine.close()


def order(prompt: str, seed: int, tier: str, **more: Any) -> Order:
    return Order(prompt=prompt, seed=seed, tier=tier, steps=STEPS, format="npy", **more)


def picture(made: Made) -> np.ndarray:
    return np.load(io.BytesIO(made.picture), allow_pickle=False)


ORDERS = [
    order("3", 1, "exact"),
    order("7", 1, "low"),
    order("3", 1, "medium"),
    order("5", 2, "high"),
    order("3", 1, "low"),
    order("7", 2, "speedup", speedup=5.0),
]
"""Strangers that share seeds and prompts among them."""


def test_each_picture_equals_the_one_made_alone(engine) -> None:
    together = engine.make(ORDERS, nothing)
    assert [made.batch for made in together] == [len(ORDERS)] * len(ORDERS)
    assert len({made.computed["share"] for made in together}) >= 3, "a test of dials needs some that differ"
    assert together[-1].computed["share"] == pytest.approx(1 / 5, abs=0.5 / STEPS), "a number is what it says"
    assert "speedup=5" in together[-1].recipe["command"]
    for wanted, made in zip(ORDERS, together, strict=True):
        (alone,) = engine.make([wanted], nothing)
        assert made.computed == alone.computed
        assert made.recipe == alone.recipe
        assert np.abs(picture(made) - picture(alone)).max() < 1e-4


def test_an_answer_tells_what_was_computed_and_what_makes_it_again(engine) -> None:
    wanted = ORDERS[1]
    (made,) = engine.make([wanted], nothing)
    steps = made.computed["steps"]
    assert len(steps) == STEPS and steps[0]["computed"] and not all(step["computed"] for step in steps)
    assert made.computed["share"] == pytest.approx(sum(step["computed"] for step in steps) / STEPS)
    loaded = load_pipeline("dit", progress=False)
    (method,) = map(Method.from_dict, made.recipe["methods"])
    with outpace.accelerate(loaded.pipe, method):
        (again,) = run_pipeline(loaded, [7], [wanted.seed], dict(made.recipe["arguments"]))
    assert np.array_equal(again, picture(made))
    words = made.recipe["command"].split()
    assert (
        words[:5] == ["outpace", "generate", "dit", "--prompt", "7"]
        and "--method scheduled_taylor" in made.recipe["command"]
    )


def test_a_measured_first_block_is_counted(engine) -> None:
    method = outpace.GatedTaylor(threshold=0.2, gate="budget")
    engine.tiers["medium"], before = method, engine.tiers["medium"]
    try:
        (made,) = engine.make([ORDERS[2]], nothing)
        blocks = sum(call.blocks for call in engine.run.trace.calls)
        assert made.computed["share"] == pytest.approx(blocks / (engine.run.trace.blocks * STEPS), abs=1e-6)
        assert made.computed["share"] > sum(step["computed"] for step in made.computed["steps"]) / STEPS
    finally:
        engine.tiers["medium"] = before


def test_nothing_piles_up_from_batch_to_batch(engine) -> None:
    for _ in range(3):
        engine.make(ORDERS[:2], nothing)
        assert len(engine.run.trace.calls) == STEPS


def test_who_leaves_stops_the_call_and_the_next_is_made_as_ever(engine) -> None:
    (before,) = engine.make([ORDERS[1]], nothing)

    def leave(step: int, steps: int) -> None:
        assert steps == STEPS
        if step == 9:
            raise Abandoned

    with pytest.raises(Abandoned):
        engine.make(ORDERS[:3], leave)
    (after,) = engine.make([ORDERS[1]], nothing)
    assert np.array_equal(picture(before), picture(after)) and before.computed == after.computed


def test_orders_that_cannot_be_made_are_refused_before_they_join(engine) -> None:
    for wanted in (order("eleven", 1, "exact"), order("99999", 1, "exact"), order("3", 1, "finest")):
        with pytest.raises(InputError):
            engine.shape(wanted)
    with pytest.raises(InputError, match=r"damaged|no PNG"):
        engine.shape(replace(ORDERS[0], source=b"\x89PNG\r\n\x1a\n"))


def test_a_large_picture_in_a_small_file_is_refused_unread(engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outpace.serve.pictures.LARGEST_SOURCE", 100)
    file = io.BytesIO()
    Image.new("RGB", (11, 10)).save(file, "PNG")
    with pytest.raises(InputError, match="11x10 pixels; send a smaller one"):
        engine.shape(replace(ORDERS[0], source=file.getvalue()))


def test_a_profile_stands_for_a_tier_and_one_for_whole_batches_does_not(tmp_path) -> None:
    from outpace.accel import Profile, Solver
    from outpace.serve.tiers import tiers_of

    method = outpace.GatedTaylor(threshold=0.07)
    file = Profile(methods=(method,), steps=20).save(tmp_path / "one.json")
    assert tiers_of((("high", str(file)),))["high"] == method
    both = Profile(methods=(method, Solver()), steps=20).save(tmp_path / "two.json")
    with pytest.raises(ConfigError, match="has the methods gated_taylor, solver"):
        tiers_of((("high", str(both)),))


def test_tiers_are_shares_of_the_work_and_the_server_says_what_medium_is() -> None:
    from click.testing import CliRunner

    from outpace.cli.serve import serve
    from outpace.serve.tiers import tiers_of

    assert [method.speedup for method in tiers_of(()).values()] == [1.0, 1.6, 2.2, 3.0]  # pyright: ignore
    assert tiers_of((), 2.5)["medium"] == outpace.ScheduledTaylor(speedup=2.5)
    asked = CliRunner().invoke(serve, ["dit", "--speedup", "2.5", "--profile", "medium=a.json"])
    assert isinstance(asked.exception, ConfigError) and "keep one" in str(asked.exception)


def test_clips_are_not_served() -> None:
    with pytest.raises(InputError, match="makes clips"):
        Engine(EngineSettings(pipeline="wan"))


class Padding:
    """A pipeline that pads its prompts, to the longest of a batch or to a length of its own."""

    def __init__(self, length: int | None) -> None:
        self.length = length
        self.tokenizer = lambda prompt: {"input_ids": prompt.split()}

    def encode_prompt(self, prompt: list[str]) -> tuple[torch.Tensor, None]:
        longest = max(len(self.tokenizer(one)["input_ids"]) for one in prompt)
        return torch.zeros(len(prompt), self.length or longest, 4), None


def test_prompts_that_would_lengthen_each_other_do_not_share_a_batch() -> None:
    assert pads_alike(Padding(length=12)) and not pads_alike(Padding(length=None))
    assert not pads_alike(SimpleNamespace(tokenizer=lambda prompt: {"input_ids": [1]})), "unknown is not trusted"
    assert pads_alike(SimpleNamespace()), "no prompts, no padding"
    counts = [token_counts(Padding(length=None), prompt) for prompt in ("a cat", "a dog", "a big dog")]
    assert counts[0] == counts[1] != counts[2]


def test_padding_parts_the_shapes_of_an_engine(engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "alike", False)
    monkeypatch.setattr("outpace.serve.engine.token_counts", lambda pipe, prompt: (len(prompt),))
    assert engine.shape(order("3", 1, "exact")) == engine.shape(order("7", 2, "low"))
    monkeypatch.setattr("outpace.serve.engine.token_counts", lambda pipe, prompt: (int(prompt),))
    assert engine.shape(order("3", 1, "exact")) != engine.shape(order("7", 2, "low"))


def test_steps_are_told_however_a_pipeline_walks_through_them() -> None:
    told: list[tuple[int, int]] = []
    bar = Ticks(lambda step, steps: told.append((step, steps)), torch.arange(3))
    assert [int(item) for item in bar] == [0, 1, 2]
    with Ticks(lambda step, steps: told.append((step, steps)), total=2) as bar:
        bar.update()
        bar.update()
    assert told == [(1, 3), (2, 3), (3, 3), (1, 2), (2, 2)]
