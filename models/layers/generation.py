"""Writing on: tokens after tokens, from any model that reads them with a state.

Shapes: B batch, T tokens, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...errors import ConfigError
from ...kernels.precision import widened


class Generates:
    """For language models whose `step(tokens, state)` gives logits (B, T, V) and the state after them."""

    @torch.no_grad()
    def generate(
        self, tokens_BT: Tensor, count: int, *, temperature: float = 0.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """(B, count): what follows a prompt, read once and then token by token with a state.

        Args:
            temperature: of the draw; 0 takes the likeliest.
            generator: that tokens are drawn by.

        Raises: ConfigError: no prompt, or a temperature below 0.
        """
        check_prompt(tokens_BT, count, temperature)
        written: list[Tensor] = []
        step: Any = getattr(self, "step")  # noqa: B009
        given, state = tokens_BT, None
        while len(written) < count:
            logits, state = step(given, state)
            written.append(drawn(logits[:, -1], temperature, generator))
            given = written[-1][:, None]
        return torch.stack(written, 1) if written else tokens_BT[:, :0]


def check_prompt(tokens_BT: Tensor, count: int, temperature: float) -> None:
    """Raises: ConfigError: not (batch, tokens) with at least one token, or a number that cannot be."""
    if tokens_BT.ndim != 2 or not tokens_BT.shape[1] or count < 0 or not temperature >= 0:
        raise ConfigError(
            f"a prompt is (batch, one token or more), with a count and a temperature of at least 0, not "
            f"{tuple(tokens_BT.shape)}, {count} and {temperature}"
        )


def drawn(logits_BV: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
    """(B,): the likeliest tokens, or drawn ones."""
    if not temperature:
        return logits_BV.argmax(-1)
    chances = (widened(logits_BV) / temperature).softmax(-1)
    return torch.multinomial(chances, 1, generator=generator)[:, 0]
