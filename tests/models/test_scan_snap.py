"""The dynamics of one layer: what is drawn, what is learned, bad input."""

from __future__ import annotations

import pytest
import torch

from outpace.errors import ConfigError
from outpace.models.scan_snap import Language, attend, freezing_step, train


def test_contexts_hold_common_tokens_and_those_of_their_next_token() -> None:
    language = Language(next_tokens=2, common=3, distinct=4, length=50)
    following, counts = language.draw(20, torch.Generator().manual_seed(0))
    assert language.tokens == 14 and torch.equal(counts.sum(1), torch.full((20,), 50.0, dtype=torch.float64))
    of_the_other = torch.where(following == language.first_next, counts[:, 7:11].sum(1), counts[:, 3:7].sum(1))
    assert set(following.tolist()) == {11, 12} and not of_the_other.any()


def test_attention_scans_then_snaps() -> None:
    language = Language()
    made = train(language, decoder_rate=2.0, attention_rate=0.5, steps=200)
    assert 0 < freezing_step(language, 2.0) < 50
    assert made.loss[-1] < 0.05 < made.loss[0] and len(made.common) == 201
    first, second = made.common[0] - made.common[100], made.common[100] - made.common[200]
    assert first > 3 * second > 0
    likely = attend(made.z_M, language.chances())
    assert float(likely.max()) < 0.5  # frozen long before one token has it all


def test_bad_input_ends_in_one_clear_error() -> None:
    with pytest.raises(ConfigError, match="at least 2 next tokens"):
        Language(next_tokens=1)
    with pytest.raises(ConfigError, match="must be positive"):
        train(Language(), decoder_rate=0.0, attention_rate=1.0)
