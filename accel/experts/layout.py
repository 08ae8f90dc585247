"""How the hidden units of a dense feed-forward layer are shared out among experts: "1S12E2A", "1S12E2A4N", "4W"."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import ConfigError

_NOTATION = re.compile(r"(\d+)S(\d+)E(\d+)A(?:(\d+)([NW]))?", re.IGNORECASE)
_QUARTERS = 4
"""Of the hidden units; a shared expert takes one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """The number of shared experts, of routed experts, and of those that are active, by token or by noise level.

    Source: Dense2MoE (Zheng et al., ICCV 2025, arXiv:2510.09094), where the default is 1S12E2A.

    Differs from the paper: in 1S12E2A4N each of 4 noise levels has its own ranking of the units that are not shared,
    its experts are runs of that ranking, and a step runs the first 2. In 1S12E2A4W all levels run the same units, and
    each has trained weights of its own for them.

    >>> str(Layout.parse("1S12E2A")), Layout.parse("1S12E2A").fraction
    ('1S12E2A', 0.375)
    """

    shared: int = 1
    """Quarters of the hidden units that every token goes through, 0 to 3."""
    experts: int = 12
    """Routed experts that the other units are dealt to in equal numbers."""
    active: int = 2
    """Routed experts a token goes through, 0 to `experts`; more cost more and err less."""
    levels: int = 0
    """Noise levels that choose for themselves, once a step; 1 is width pruning. 0: every token chooses."""
    weights: bool = False
    """The levels run the same units, and each with weights of its own."""

    def __post_init__(self) -> None:
        if not 0 <= self.shared < _QUARTERS:
            raise ConfigError(
                f"a layout has 0 to 3 shared experts, each a quarter of the hidden units, not {self.shared}"
            )
        if self.experts < 1:
            raise ConfigError(f"a layout has at least one routed expert, not {self.experts}")
        if not 0 <= self.active <= self.experts:
            raise ConfigError(f"{self.active} of {self.experts} experts cannot be active; choose 0 to {self.experts}")
        if self.weights and not self.levels:
            raise ConfigError("weights of their own are had by noise levels; give one or more")
        if self.levels and not self.shared + self.active:
            raise ConfigError("a layout by noise level has shared or active experts, or nothing would run")

    @staticmethod
    def parse(text: str) -> Layout:
        """The layout that `text` writes down. Raises: ConfigError."""
        found = _NOTATION.fullmatch(text.strip())
        if found is None:
            raise ConfigError(
                f"'{text}' is no layout; write 1S12E2A: 1 shared expert (a quarter of the hidden units), "
                "12 routed experts, 2 of them active; 1S12E2A4N to choose at each of 4 noise levels, not for each "
                "token; 1S12E2A4W for the same units with weights of their own at each"
            )
        shared, experts, active, levels, letter = found.groups()
        if levels is not None and not int(levels):
            raise ConfigError(f"'{text}' has no noise level; write 1{letter} or more, or leave the {letter} out")
        return Layout(
            shared=int(shared),
            experts=int(experts),
            active=int(active),
            levels=int(levels or 0),
            weights=letter in ("W", "w"),
        )

    def __str__(self) -> str:
        return f"{self.shared}S{self.experts}E{self.active}A" + (
            f"{self.levels}{'W' if self.weights else 'N'}" if self.levels else ""
        )

    @property
    def fraction(self) -> float:
        """Share of a layer's matrices that one token goes through."""
        alone = self.shared / _QUARTERS
        return alone + (1 - alone) * self.active / self.experts

    def widths(self, hidden: int) -> tuple[int, int]:
        """Hidden units of the shared expert and of each routed one. Raises: ConfigError where they do not divide."""
        shared, odd = divmod(hidden * self.shared, _QUARTERS)
        each, left = divmod(hidden - shared, self.experts)
        if odd or left or not each:
            raise ConfigError(
                f"{hidden} hidden units do not divide into {self}: {self.shared} of 4 quarters shared and the rest "
                f"among {self.experts}; {self._nearest(hidden)}"
            )
        return shared, each

    def deal(self, order_H: Tensor) -> tuple[Tensor, Tensor]:
        """Which units the shared expert and each routed expert get: the first are shared, the others dealt in turn.

        Dealt in turn every expert has its part of the important units; cut into runs, the last would be dead weight.

        Args:
            order_H: the hidden units, most important first.

        Returns: the units of the shared expert (S) and those of the routed ones (experts x each).

        Raises: ConfigError where `order_H` is no order of all units, or they do not divide.
        """
        hidden = order_H.numel()
        shared, each = self.widths(hidden)
        if order_H.ndim != 1 or not torch.equal(order_H.sort().values, torch.arange(hidden, device=order_H.device)):
            raise ConfigError(f"an order of {hidden} hidden units names each of 0 to {hidden - 1} once")
        return order_H[:shared], order_H[shared:].reshape(each, self.experts).T.contiguous()

    def _nearest(self, hidden: int) -> str:
        rest, odd = divmod(hidden * (_QUARTERS - self.shared), _QUARTERS)
        fits = [] if odd else [n for n in range(2, 65) if rest % n == 0]
        if not fits:
            return "no number of experts from 2 to 64 does with as many shared; try another, such as 0S"
        nearest = min(fits, key=lambda n: abs(n - self.experts))
        return f"{self.shared}S{nearest}E{min(self.active, nearest)}A would"
