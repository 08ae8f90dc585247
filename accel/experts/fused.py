"""Parts for single-stream blocks, where one matrix projects out of attention and feed-forward together.

The block's own forward goes on joining what attention gives with what the feed-forward branch gives. That branch now
hands its input on as it is, and the experts sit where both are projected out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FusedOutput(nn.Module):
    """Takes attention's output joined with the experts' input: projects the one, sends the other through the experts.

    Args:
        projection: the dense block's matrix out of both; its columns for attention come first.
        attention: how many those are.
        experts: in the place of the rest.
    """

    def __init__(self, projection: nn.Linear, attention: int, experts: nn.Module) -> None:
        super().__init__()
        self.width = attention
        self.attention = linear_of(projection.weight[:, :attention])
        self.experts = experts

    def forward(self, joined: Tensor) -> Tensor:
        attended, x = joined.split([self.width, joined.shape[-1] - self.width], dim=-1)
        return self.attention(attended) + self.experts(x)


class FusedInput(nn.Module):
    """Projects queries, keys and values, and hands its input on behind them.

    Args:
        projection: the dense block's matrix into attention and feed-forward.
        attention: how many of its rows are attention's; they come first.
    """

    def __init__(self, projection: nn.Linear, attention: int) -> None:
        super().__init__()
        bias = projection.bias
        self.attention = linear_of(projection.weight[:attention], None if bias is None else bias[:attention])

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.attention(x), x], dim=-1)


class Twice(nn.Module):
    """Its input beside itself, for a block that cuts the result into a value and a gate."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, x], dim=-1)


class One(nn.Module):
    """A gate that lets everything pass."""

    def forward(self, gate: Tensor) -> Tensor:
        return gate.new_ones(1)


def linear_of(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """A linear layer with a copy of these weights, on their device and in their type, trained where they are."""
    out, width = weight.shape
    linear = nn.Linear(width, out, bias=bias is not None, device="meta")
    linear.weight = parameter_of(weight)
    if bias is not None:
        linear.bias = parameter_of(bias)
    return linear


def parameter_of(tensor: Tensor) -> nn.Parameter:
    """A parameter with a copy of `tensor`, trained where that is."""
    return nn.Parameter(tensor.detach().clone(memory_format=torch.contiguous_format), tensor.requires_grad)
