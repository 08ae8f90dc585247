"""What a user of StyleSwin may do wrong, and that its game is a game."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from outpace.errors import ConfigError
from outpace.models.layers.adversarial import FIR, resampled
from outpace.models.styleswin import Critic, StyleSwin, StyleSwinConfig, critic_loss, generator_loss, gradient_penalty

SMALL: dict[str, Any] = {"widths": (16, 16, 8), "style": 12, "mapping": 2, "window": 4}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: StyleSwinConfig(widths=(16, 16)), "at least three widths"),
        (lambda: StyleSwinConfig(widths=(16, 16, 10)), "10 channels over quarters"),
        (lambda: StyleSwinConfig(widths=(16, 16, 4)), "at least 8 channels"),
        (lambda: StyleSwinConfig(window=7), "windows of an even side"),
        (lambda: StyleSwin(StyleSwinConfig(**SMALL))(torch.zeros(2, 13)), r"shape \(batch, 12\)"),
        (lambda: Critic(StyleSwinConfig(**SMALL))(torch.zeros(4, 3, 8, 8)), "looks at pictures"),
        (lambda: Critic(StyleSwinConfig(**SMALL))(torch.zeros(6, 3, 16, 16)), "a multiple of it, not 6"),
        (lambda: resampled(torch.zeros(1, 1, 8, 8), FIR, up=2, down=2), "up or down"),
    ],
)
def test_bad_input_ends_in_one_clear_error(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call()


@pytest.mark.parametrize("wavelets", [True, False])
def test_both_sides_learn_against_each_other(wavelets: bool) -> None:
    torch.manual_seed(0)
    config = StyleSwinConfig(**SMALL, wavelets=wavelets)
    generator, critic = StyleSwin(config), Critic(config)
    real, made = torch.randn(4, 3, 16, 16), generator(torch.randn(4, 12))
    loss = critic_loss(critic(real), critic(made.detach())) + gradient_penalty(critic, real)
    loss.backward()
    assert all(p.grad is not None for p in critic.parameters())
    generator_loss(critic(made)).backward()
    assert all(p.grad is not None for p in generator.parameters())
