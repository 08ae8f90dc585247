"""AlgoFormer: more loops than trained for, and bad input."""

from __future__ import annotations

import pytest
import torch

from outpace.errors import ConfigError
from outpace.models.algoformer import AlgoFormer, AlgoFormerConfig

SMALL = AlgoFormerConfig(inputs=3, examples=5, width=8, heads=2, loops=4)


def test_any_number_of_loops_and_fewer_examples() -> None:
    model, x, y = AlgoFormer(SMALL), torch.randn(2, 4, 3), torch.randn(2, 4)
    assert model(x, y, loops=9, trained=3).shape == (3, 2, 4)
    assert torch.equal(model(x, y, loops=4), model(x, y))


def test_bad_input_ends_in_one_clear_error() -> None:
    with pytest.raises(ConfigError, match="width over heads: 9 cannot be split into 2"):
        AlgoFormerConfig(width=9, heads=2)
    with pytest.raises(ConfigError, match="must be none or add, not 'mul'"):
        AlgoFormerConfig(injection="mul")
    with pytest.raises(ConfigError, match="at least 1"):
        AlgoFormerConfig(loops=0)
    with pytest.raises(ConfigError, match="places for 5 examples, not 6"):
        AlgoFormer(SMALL)(torch.zeros(1, 6, 3), torch.zeros(1, 6))
    with pytest.raises(ConfigError, match="of 4 loops, 1 to 4 can be trained, not 5"):
        AlgoFormer(SMALL)(torch.zeros(1, 5, 3), torch.zeros(1, 5), trained=5)
