"""What is remembered of StyleSwin."""

from __future__ import annotations

import torch
from torch import Tensor

from ..layers.adversarial import FIR, resampled
from ..numbers import numbers
from ..remember import case, filled, filled_model, given
from ..styleswin import (
    Critic,
    StyledNorm,
    StyleSwinConfig,
    critic_loss,
    generator_loss,
    gradient_penalty,
    positions,
    widths_of,
)

SMALL = StyleSwinConfig(widths=(16, 16, 8, 8), style=12, mapping=2, window=4)


case("styleswin", "the toy")(lambda: given("styleswin"))
case("styleswin", "more heads, two sides with shifted windows")(
    lambda: given("styleswin", widths=(16, 24, 32, 16), window=4, mapping=3)
)


@case("styleswin", "critics of wavelets and of pixels, in groups of four, losses and the penalty")
def critics() -> list[Tensor]:
    found: list[Tensor] = []
    for wavelets in (True, False):
        config = StyleSwinConfig(widths=SMALL.widths, style=12, window=4, wavelets=wavelets)
        critic = filled(Critic(config))
        with torch.no_grad():
            real, made = (critic(numbers((8, 3, 32, 32), seed)) for seed in (1, 2))
        found += [real, made, critic_loss(real, made), generator_loss(made)]
        found.append(gradient_penalty(critic, numbers((3, 3, 32, 32), 3)))
    return found


@case("styleswin", "where there is next to nothing: of noise, of what a grid holds, of what tells pictures apart")
@torch.no_grad()
def faint() -> list[Tensor]:
    model, critic = filled_model("styleswin"), filled(Critic(SMALL))
    one = numbers((1, 3, 32, 32))
    norm = filled(StyledNorm(16, 12))
    return [
        model.style_of(1e-4 * numbers((2, 12))), norm(1e-3 * numbers((2, 4, 4, 16)), numbers((2, 12))),
        critic(one + 1e-5 * numbers((4, 3, 32, 32), 1)),
    ]  # fmt: skip


@case("styleswin", "resampled up and down, positions, styles, the published widths")
@torch.no_grad()
def parts() -> list[object]:
    x = numbers((1, 2, 8, 6))
    return [
        resampled(x, FIR, up=2), resampled(x, FIR, down=2), resampled(x, (1.0, 2.0, 1.0, 0.5, 0.25), down=2),
        resampled(x, FIR, pad=(2, 2)), positions(3, 5, 16), filled_model("styleswin").style_of(numbers((2, 12))),
        [list(widths_of(side, multiplier)) for side, multiplier in ((32, 2), (256, 2), (1024, 1))],
    ]  # fmt: skip
