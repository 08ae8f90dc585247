"""Numbers that decisions need from a device, brought over together.

Reading one number makes the processor wait until the device has done everything it was asked for before. So what can
wait for an answer does, and comes along with the next number that cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

MOST_WAITING = 64
"""Numbers that are kept waiting before one more has them all read."""


class Reads:
    """Collects numbers, and reads them in one transfer."""

    def __init__(self) -> None:
        self._waiting: list[tuple[torch.Tensor, Callable[[float], None]]] = []

    def later(self, value: torch.Tensor, told: Callable[[float], None]) -> None:
        """Have `told` called with the number in `value` (one element, any shape) when something is next read."""
        self._waiting.append((value, told))
        if len(self._waiting) > MOST_WAITING:
            self.read([])

    def read(self, values: Sequence[torch.Tensor]) -> list[float]:
        """The numbers in tensors of any shapes, one after the other; what was waiting is told first."""
        waiting, self._waiting = self._waiting, []
        every = [*(value for value, _ in waiting), *values]
        if not every:
            return []
        device = every[-1].device
        flat = [value.detach().reshape(-1).to(device, torch.float32) for value in every]
        numbers = (flat[0] if len(flat) == 1 else torch.cat(flat)).tolist()
        for (_, told), number in zip(waiting, numbers, strict=False):
            told(number)
        return numbers[len(waiting) :]
