"""Recurrent highway networks whose gates, attention and depth are switches, for forecasting chaotic systems.

Source: Heidenreich, Vlachas, Koumoutsakos, 2024, arXiv:2410.02654, of which only the abstract was at hand: what is here
follows it and Zilly et al., 2016, arXiv:1607.03474, for the cell.
Shapes: B batch, T steps, K variables, D width, S states attended to.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..kernels.attention import attend
from .companion import MODELS, Companion, check_sizes
from .gtrxl import RESIDUAL_GATES
from .numbers import numbers

GATINGS = {"none": 1, "coupled": 2, "free": 3}
"""How a layer of the cell joins its state and what it makes of it -> matrices it takes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RhnConfig:
    """Sizes and switches."""

    variables: int
    """K."""
    width: int = 64
    """D."""
    depth: int = 2
    """Layers between two steps."""
    gating: str = "coupled"
    """"none": s' = h; "coupled": s' = t h + (1 - t) s; "free": s' = t h + c s."""
    remembered: int = 16
    """S: the last states that each step attends to; 0 is no attention."""
    merge: str = "highway"
    """What joins the state and what attention found: a name in `gtrxl.RESIDUAL_GATES`."""
    bias: float = 2.0
    """Against change at the start: of the cell's gates and of the merge."""

    def __post_init__(self) -> None:
        check_sizes(self, zero=("remembered",), signed=("bias",))
        if self.gating not in GATINGS:
            raise ConfigError(f"gating of an RHN must be one of {', '.join(GATINGS)}, not '{self.gating}'")
        _ = RESIDUAL_GATES[self.merge]


@dataclass(frozen=True, kw_only=True, slots=True)
class RhnState:
    """What is carried from step to step."""

    state_BD: Tensor
    """The cell's."""
    past_BSD: Tensor
    """The last states, the newest last."""


class Rhn(nn.Module):
    """The next values of a system from those so far.

    >>> model = Rhn(RhnConfig(variables=3, width=8))
    >>> model(torch.zeros(2, 5, 3)).shape
    torch.Size([2, 5, 3])
    """

    def __init__(self, config: RhnConfig) -> None:
        super().__init__()
        self.config, D = config, config.width
        parts = GATINGS[config.gating]
        self.read = nn.Linear(config.variables, parts * D, bias=False)
        layers = [nn.Linear(D, parts * D) for _ in range(config.depth)]
        for layer in layers:
            nn.init.constant_(layer.bias[D : 2 * D], -config.bias)
        self.cell = nn.ModuleList(layers)
        if config.remembered:
            self.query, self.key, self.value = (nn.Linear(D, D, bias=False) for _ in range(3))
            self.places_S = nn.Parameter(torch.zeros(config.remembered))
            self.merge = RESIDUAL_GATES[config.merge](D, config.bias)
        self.write = nn.Linear(D, config.variables)

    def forward(self, x_BTK: Tensor) -> Tensor:
        """(B, T, K): behind each step, what is said of the next."""
        made, state = [], None
        for x in x_BTK.unbind(1):
            value, state = self.step(x, state)
            made.append(value)
        return torch.stack(made, 1)

    def step(self, x_BK: Tensor, state: RhnState | None) -> tuple[Tensor, RhnState]:
        """The next values, and the state with which to go on."""
        if state is None:
            empty = x_BK.new_zeros(len(x_BK), self.config.width)
            state = RhnState(state_BD=empty, past_BSD=empty[:, None, :][:, :0])
        s = state.state_BD
        for depth, layer in enumerate(self.cell):
            logits = layer(s) + (self.read(x_BK) if depth == 0 else 0)
            h, *gates = logits.chunk(GATINGS[self.config.gating], -1)
            h = h.tanh()
            if not gates:
                s = h
            elif len(gates) == 1:
                s = torch.lerp(s, h, gates[0].sigmoid())
            else:
                s = gates[0].sigmoid() * h + gates[1].sigmoid() * s
        past = state.past_BSD
        if self.config.remembered:
            if past.shape[1]:
                s = self.merge(s, self.recall(s, past))
            past = torch.cat([past, s[:, None]], 1)[:, -self.config.remembered :]
        return x_BK + self.write(s), RhnState(state_BD=s, past_BSD=past)

    def recall(self, s_BD: Tensor, past_BSD: Tensor) -> Tensor:
        """(B, D): one head of attention from the state to those before it, with a bias by distance."""
        q, k, v = self.query(s_BD)[:, None, None], self.key(past_BSD)[:, None], self.value(past_BSD)[:, None]
        bias = self.places_S[-past_BSD.shape[1] :].expand(len(s_BD), 1, 1, -1)
        return attend(q, k, v, bias=bias)[:, 0, 0]

    def forecast(self, x_BTK: Tensor, steps: int) -> Tensor:
        """(B, steps, K): after reading the given steps, its own values are what it reads."""
        value, state = x_BTK[:, 0], None
        for x in x_BTK.unbind(1):
            value, state = self.step(x, state)
        made = [value]
        for _ in range(steps - 1):
            value, state = self.step(value, state)
            made.append(value)
        return torch.stack(made, 1)


RHN = MODELS.add(
    "rhn",
    Companion(
        title="Deconstructing Recurrence, Attention, and Gating: Investigating the transferability of Transformers and "
        "Gated Recurrent Neural Networks in forecasting of dynamical systems",
        source="Heidenreich, Vlachas, Koumoutsakos, 2024, arXiv:2410.02654",
        summary="recurrent highway networks with gates and attention as switches, and chaotic systems to forecast",
        build=Rhn,
        config=RhnConfig,
        toy=RhnConfig(variables=3, width=8, remembered=4),
        example=lambda config: (numbers((2, 7, config.variables), dtype=torch.float32),),
        done=(
            "the highway cell of any depth: without gates, with coupled and with free ones",
            "attention over the last states with a bias by distance, joined by any of GTrXL's gates",
            "simulators (`outpace.models.chaos`): Lorenz 96 of one and two scales, Kuramoto-Sivashinsky; the largest "
            "Lyapunov exponent, and how long a forecast is valid",
        ),
        left_out=(
            "LSTM and GRU, which torch has; transformers with recurrence; the paper's real series and noise",
            "its sizes: only the abstract was at hand",
        ),
        claim="gates and attention each make recurrent networks forecast chaotic systems for longer",
        limits=(
            "how long a forecast is valid depends on the threshold, half a spread here",
            "beside gates, attention over the last states did not help in the trial, and cost width",
        ),
    ),
)
