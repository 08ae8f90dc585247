"""Causal depthwise convolution: every channel its own short filter over the last W tokens.

Shapes: B batch, T tokens, D channels, W width of the filter.
"""

from __future__ import annotations

from typing import Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import ConfigError
from ..inputs import check_one_type


@overload
def causal_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = ...,
    *,
    state: Tensor | None = ...,
    return_state: Literal[False] = ...,
) -> Tensor: ...
@overload
def causal_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None = ..., *, state: Tensor | None = ..., return_state: Literal[True]
) -> tuple[Tensor, Tensor]: ...
def causal_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, state: Tensor | None = None, return_state: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """y[t] = sum over i of weight[:, i] x[t - W + 1 + i] + bias: no token sees a later one.

    Shapes: x (B, T, D), weight (D, W), bias (D), state (B, W - 1, D) -> (B, T, D); with `return_state` also the state.

    Args:
        state: the tokens before the first, as the call before returned them; zeros where None.
        return_state: give the last W - 1 tokens too, so that a sequence can be taken piece by piece.

    Raises: ConfigError: shapes or types that do not fit together.

    >>> causal_conv(torch.tensor([[[1.0], [2.0], [3.0]]]), torch.tensor([[1.0, 10.0]]))
    tensor([[[10.],
             [21.],
             [32.]]])
    """
    _check(x, weight, bias, state)
    past = weight.shape[1] - 1
    before = x.new_zeros(x.shape[0], past, x.shape[2]) if state is None else state
    seen = torch.cat([before, x], 1)
    out = F.conv1d(seen.mT, weight[:, None], bias, groups=weight.shape[0]).mT if x.shape[1] else x
    return (out, seen[:, seen.shape[1] - past :]) if return_state else out


def reference_causal_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, state: Tensor | None = None
) -> Tensor:
    """The same as a sum over the filter, float64."""
    width = weight.shape[1]
    before = x.new_zeros(x.shape[0], width - 1, x.shape[2]) if state is None else state
    seen, out = torch.cat([before, x], 1).double(), x.new_zeros(x.shape, dtype=torch.float64)
    for i in range(width):
        out = out + weight[:, i].double() * seen[:, i : i + x.shape[1]]
    return out if bias is None else out + bias.double()


def _check(x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor | None) -> None:
    if x.ndim != 3 or weight.ndim != 2 or weight.shape[0] != x.shape[2] or weight.shape[1] < 1:
        raise ConfigError(
            f"a causal convolution takes x (batch, tokens, channels) and a weight (channels, width), not "
            f"{tuple(x.shape)} and {tuple(weight.shape)}"
        )
    past = (x.shape[0], weight.shape[1] - 1, x.shape[2])
    for name, part, shape in (("bias", bias, past[2:]), ("state", state, past), ("weight", weight, weight.shape)):
        if part is None:
            continue
        if tuple(part.shape) != tuple(shape):
            raise ConfigError(f"the {name} of this convolution must have shape {tuple(shape)}, not {tuple(part.shape)}")
        check_one_type("a causal convolution", x=x, **{name: part})
