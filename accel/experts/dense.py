"""What a dense feed-forward layer computes, whatever class it is: two or three matrices and an activation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import Tensor

from ...kernels.feed_forward import glu


@dataclass(frozen=True, kw_only=True, slots=True)
class Dense:
    """y = down (a(up x + b)) + c, or, with a gate, y = down (a(gate x + g) * (up x + b)) + c.

    The fields are views of the layer's own weights, or of anything shaped like them, such as their gradients.

    Shapes: D features in, H hidden units, O features out.
    """

    activation: str
    """a: a name of `outpace.kernels.feed_forward.ACTIVATIONS`."""
    up_HD: Tensor
    down_OH: Tensor
    gate_HD: Tensor | None = None
    up_bias_H: Tensor | None = None
    gate_bias_H: Tensor | None = None
    bias_O: Tensor | None = None

    @property
    def hidden(self) -> int:
        return self.up_HD.shape[0]

    @property
    def width(self) -> int:
        return self.up_HD.shape[1]

    @property
    def matrix_weights(self) -> int:
        """Numbers in the matrices; biases are left out."""
        return sum(part.numel() for part in (self.up_HD, self.down_OH, self.gate_HD) if part is not None)

    def unit_cost(self, tokens: float) -> float:
        """Multiplications of one hidden unit for a sample of which the layer sees so many tokens."""
        return tokens * self.matrix_weights / self.hidden

    def take(self, units: Tensor) -> Dense:
        """The layer with these hidden units only, in their order and without the output's bias; copies."""

        def rows(part: Tensor | None) -> Tensor | None:
            return None if part is None else part.index_select(0, units.to(part.device))

        up, gate = cast(Tensor, rows(self.up_HD)), rows(self.gate_HD)
        return Dense(
            activation=self.activation,
            up_HD=up,
            down_OH=self.down_OH.index_select(1, units.to(self.down_OH.device)),
            gate_HD=gate,
            up_bias_H=rows(self.up_bias_H),
            gate_bias_H=rows(self.gate_bias_H),
        )

    def __call__(self, x: Tensor) -> Tensor:
        """What the layer makes of `x` (..., D)."""
        return glu(
            x,
            self.up_HD,
            self.down_OH,
            self.gate_HD,
            activation=self.activation,
            up_bias_H=self.up_bias_H,
            gate_bias_H=self.gate_bias_H,
            down_bias_O=self.bias_O,
        )
