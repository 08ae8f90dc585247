"""GTrXL in small: remember a cue until the end of an episode, learnt from rewards, at a high learning rate."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from ..gtrxl import Gtrxl, GtrxlConfig
from .trial import Trial

UPDATES, STEPS, BATCH, WIDTH, RATE = 150, 8, 64, 32, 1e-2


class Agent(nn.Module):
    """Two actions and a value at the last step of an episode."""

    def __init__(self, gate: str, norm: str) -> None:
        super().__init__()
        self.into = nn.Linear(4, WIDTH)
        self.body = Gtrxl(
            GtrxlConfig(width=WIDTH, layers=8, heads=2, head_width=16, hidden=64, memory=0, gate=gate, norm=norm)
        )
        self.out = nn.Linear(WIDTH, 3)

    def forward(self, seen_BTF: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits of the actions, and the value."""
        out = self.out(self.body(self.into(seen_BTF))[:, -1])
        return out[:, :2], out[:, 2]


def arm(gate: str, norm: str) -> Callable[[int], float]:
    """Training by REINFORCE with a learned value as the baseline."""

    def run(seed: int) -> float:
        torch.manual_seed(seed)
        agent, generator = Agent(gate, norm), torch.Generator().manual_seed(seed)
        optimiser, rewards = torch.optim.Adam(agent.parameters(), lr=RATE), []
        for _ in range(UPDATES):
            cue = torch.randint(2, (BATCH,), generator=generator)
            seen = torch.randn(BATCH, STEPS, 4, generator=generator)
            seen[:, :, :2] = 0
            seen[torch.arange(BATCH), 0, cue] = 1
            logits, value = agent(seen)
            action = torch.multinomial(logits.detach().softmax(-1), 1, generator=generator)[:, 0]
            reward = 2 * (action == cue).float() - 1
            chosen = logits.log_softmax(-1).gather(1, action[:, None])[:, 0]
            entropy = torch.distributions.Categorical(logits=logits).entropy().mean()
            loss = -((reward - value.detach()) * chosen).mean() + 0.5 * F.mse_loss(value, reward) - 0.01 * entropy
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), 1.0)
            optimiser.step()
            rewards.append(float((action == cue).float().mean()))
        return sum(rewards[-30:]) / 30

    return run


TRIAL = Trial(
    claim="with GRU gates, training by rewards holds at learning rates at which Transformer-XL fails",
    measure="share of the last 30 updates' episodes whose cue was remembered, chance 0.5",
    higher_is_better=True,
    arms={"GRU": arm("gru", "before"), "TrXL": arm("add", "after"), "TrXL-I": arm("add", "before")},
    against=("TrXL",),
    task=f"a cue {STEPS} steps back, 8 blocks of width {WIDTH}, REINFORCE, {UPDATES} updates of {BATCH} episodes, "
    f"learning rate {RATE}",
)
