"""StyleSwin's claim in small: borders of windows in made digits, with a critic of wavelets and with one of pixels."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..styleswin import Critic, StyleSwin, StyleSwinConfig, critic_loss, generator_loss, gradient_penalty
from .digits import TEST, digits
from .trial import Trial

STEPS, BATCH, WINDOW = 400, 8, 4


def config_of(*, wavelets: bool = True) -> StyleSwinConfig:
    """Pictures of 16 x 16 from windows of 4 x 4."""
    return StyleSwinConfig(
        widths=(32, 32, 32), style=32, mapping=2, window=WINDOW, expansion=2, colours=1, wavelets=wavelets
    )


def real_digits() -> Tensor:
    """(N, 1, 16, 16) from -1 to 1: digits to learn from, enlarged."""
    pictures, _ = digits()
    return F.interpolate(pictures[TEST:], size=(16, 16), mode="bilinear") * 2 - 1


def learned(config: StyleSwinConfig, seed: int, *, steps: int = STEPS) -> StyleSwin:
    """A generator after a game of so many turns; the mean of its last weights, as the paper's."""
    torch.manual_seed(seed)
    generator, critic, kept = StyleSwin(config), Critic(config), StyleSwin(config)
    pictures, drawn = real_digits(), torch.Generator().manual_seed(seed)
    makes = torch.optim.Adam(generator.parameters(), 1e-3, betas=(0.0, 0.99))
    judges = torch.optim.Adam(critic.parameters(), 2e-3, betas=(0.0, 0.99))
    kept.load_state_dict(generator.state_dict())
    for step in range(steps):
        real = pictures[torch.randint(len(pictures), (BATCH,), generator=drawn)]
        with torch.no_grad():
            made = generator(torch.randn(BATCH, config.style, generator=drawn))
        loss = critic_loss(critic(real), critic(made))
        if step % 8 == 0:
            loss = loss + 8 * 1.0 / 2 * gradient_penalty(critic, real)
        judges.zero_grad()
        loss.backward()
        judges.step()
        fooled = generator_loss(critic(generator(torch.randn(BATCH, config.style, generator=drawn))))
        makes.zero_grad()
        fooled.backward()
        makes.step()
        with torch.no_grad():
            for mean, now in zip(kept.parameters(), generator.parameters(), strict=True):
                mean.lerp_(now, max(0.01, 1 / (step + 1)))
    return kept


def blocking(pictures_BCYX: Tensor) -> float:
    """Mean step between neighbours across the borders of windows over that inside them; 1 where borders do not show."""
    across = (pictures_BCYX[..., 1:] - pictures_BCYX[..., :-1]).abs().mean((0, 1, 2))
    down = (pictures_BCYX[..., 1:, :] - pictures_BCYX[..., :-1, :]).abs().mean((0, 1, 3))
    steps = (across + down) / 2
    border = torch.arange(1, len(steps) + 1) % WINDOW == 0
    return float(steps[border].mean() / steps[~border].mean())


def arm(*, wavelets: bool) -> Callable[[int], float]:
    """How far the blocking of made digits is from that of real ones."""

    def run(seed: int) -> float:
        model = learned(config_of(wavelets=wavelets), seed)
        with torch.no_grad():
            made = model(torch.randn(256, 32, generator=torch.Generator().manual_seed(10_000)))
        return abs(blocking(made) / blocking(real_digits()) - 1)

    return run


TRIAL = Trial(
    claim="a critic of wavelets leaves fewer borders of windows in the pictures than a critic of pixels",
    measure="steps across borders over steps inside, as far from real digits' as a share",
    higher_is_better=False,
    arms={"wavelets": arm(wavelets=True), "pixels": arm(wavelets=False)},
    against=("pixels",),
    task=f"digits enlarged to 16 x 16, windows of {WINDOW} x {WINDOW}, {STEPS} turns of {BATCH} pictures",
)
