"""Every companion model: its checks hold, its card is whole, and bad configurations end in one clear error."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from outpace.errors import ConfigError, UnknownNameError
from outpace.models import MODELS, Check, checks_of, companion, trial_of
from outpace.models.bct import BlockwiseConfig, blockwise
from outpace.models.numbers import fill, numbers
from outpace.models.remember import GRADIENTS, STRUCTURE

torch.set_num_threads(1)
CHECKS = [
    pytest.param(check, id=f"{name}: {check.about}")
    for name, card in MODELS.items()
    for check in checks_of(name)[len(card.sizes) :]  # test_create.py counts sizes and holds their structure
    if not check.about.endswith((f": {STRUCTURE}", f": {GRADIENTS}"))  # test_remember.py holds gradients
]


@pytest.mark.parametrize("check", CHECKS)
def test_what_holds_exactly(check: Check) -> None:
    error, held = check.run()
    assert held, f"{check.about}: {error} is more than {check.at_most}"


@pytest.mark.parametrize("name", MODELS)
def test_cards_are_whole(name: str) -> None:
    model = MODELS[name]
    assert model.title and "arXiv:" in model.source and model.claim and model.done
    assert len(checks_of(name)) >= len(model.sizes) + 2
    trial = trial_of(name)
    assert trial is None or set(trial.against) < set(trial.arms)


@pytest.mark.slow
def test_checking_everything_takes_less_than_a_minute_of_one_processor() -> None:
    before = os.times()
    done = subprocess.run(
        [sys.executable, "-m", "outpace", "models", "check", "--all", "--json"],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    after = os.times()
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == set(MODELS) and all(one["held"] for checks in found.values() for one in checks)
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    assert seconds < 60, f"{seconds:.0f} s of processor time"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
@torch.no_grad()
def test_encoders_in_codes_keep_the_type_they_are_given(dtype: torch.dtype) -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, activation="gelu", batch_first=True)
    encoder = fill(nn.TransformerEncoder(layer, 1, nn.LayerNorm(16), enable_nested_tensor=False)).eval()
    x = numbers((2, 5, 16), dtype=torch.float32)
    expected, small = blockwise(encoder, BlockwiseConfig())(x), blockwise(encoder.to(dtype), BlockwiseConfig())
    found = small(x.to(dtype))
    assert found.dtype == dtype == small[0].feed_forward(x.to(dtype)).dtype == small[1](x.to(dtype)).dtype
    assert float((found.double() - expected.double()).abs().mean()) < 0.1 * float(expected.abs().mean())


def test_a_check_that_does_not_hold_is_seen() -> None:
    assert Check(about="never", measure=lambda: 1e-3, at_most=1e-4).run() == (1e-3, False)
    assert not Check(about="not a number", measure=lambda: float("nan"), at_most=1.0).run()[1]


def test_unknown_names_get_a_suggestion() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'gam'"):
        checks_of("gamm")
    with pytest.raises(UnknownNameError, match="no model"):
        trial_of("x/../y")


def test_what_cannot_be_split_is_said() -> None:
    with pytest.raises(ConfigError, match="width over heads: 10 cannot be split into 3"):
        companion.check_divides("width over heads", 10, 3)


def test_a_method_has_no_parameters_to_count() -> None:
    card = companion.Companion(title="Looking", source="arXiv:0", summary="looks", done=("it",), claim="none")
    with pytest.raises(ConfigError, match="'Looking' is a method, not a model"):
        companion.count_parameters(card, None)
