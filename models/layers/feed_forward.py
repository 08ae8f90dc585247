"""The gated feed-forward network of a transformer block."""

from __future__ import annotations

from torch import Tensor, nn

from ...kernels.feed_forward import glu


class GatedFeedForward(nn.Module):
    """down (a(gate x) * (up x)): SwiGLU or GeGLU."""

    def __init__(self, width: int, hidden: int, *, activation: str = "silu", bias_out: bool = False) -> None:
        super().__init__()
        self.activation = activation
        self.up, self.gate = (nn.Linear(width, hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(hidden, width, bias=bias_out)

    def forward(self, x: Tensor) -> Tensor:
        return glu(
            x,
            self.up.weight,
            self.down.weight,
            self.gate.weight,
            activation=self.activation,
            down_bias_O=self.down.bias,
        )
