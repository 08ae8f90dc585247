"""Gated linear units: SwiGLU, GeGLU, and the plain network where there is no gate.

Source: Shazeer, 2020, arXiv:2002.05202.
Shapes: D features in, H hidden units, O features out.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from ...errors import ConfigError, UnknownNameError
from ...registry import suggestion
from ..inputs import check_one_type

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
}


def gated_unit(up: Tensor, gate: Tensor | None, activation: str) -> Tensor:
    """Hidden units from what the matrices into them gave: a(gate) * up, or a(up) without a gate.

    Raises: UnknownNameError: an activation that is not in ACTIVATIONS.
    """
    if activation not in ACTIVATIONS:
        raise UnknownNameError(f"a glu has no activation '{activation}'{suggestion(activation, list(ACTIVATIONS))}")
    act = ACTIVATIONS[activation]
    return act(up) if gate is None else act(gate) * up


def glu(
    x: Tensor,
    up_HD: Tensor,
    down_OH: Tensor,
    gate_HD: Tensor | None = None,
    *,
    activation: str = "silu",
    up_bias_H: Tensor | None = None,
    gate_bias_H: Tensor | None = None,
    down_bias_O: Tensor | None = None,
) -> Tensor:
    """down (a(gate x + g) * (up x + b)) + c, or down a(up x + b) + c without a gate.

    Shapes: x (..., D) -> (..., O). Matrices lie as in `nn.Linear`, (out, in).

    Args:
        activation: a: a name in `outpace.kernels.feed_forward.ACTIVATIONS`.

    Raises: ConfigError, UnknownNameError: shapes or types that do not fit, or an activation that is not known.

    >>> one = torch.eye(2)
    >>> glu(torch.tensor([0.0, 1.0]), one, one, one)
    tensor([0.0000, 0.7311])
    """
    _check(x, up_HD, down_OH, gate_HD, (up_bias_H, gate_bias_H, down_bias_O))
    up = F.linear(x, up_HD, up_bias_H)
    gate = None if gate_HD is None else F.linear(x, gate_HD, gate_bias_H)
    return F.linear(gated_unit(up, gate, activation), down_OH, down_bias_O)


def _check(
    x: Tensor,
    up_HD: Tensor,
    down_OH: Tensor,
    gate_HD: Tensor | None,
    biases: tuple[Tensor | None, Tensor | None, Tensor | None],
) -> None:
    if x.ndim < 1 or up_HD.ndim != 2 or down_OH.ndim != 2 or up_HD.shape[1] != x.shape[-1]:
        raise ConfigError(
            f"a glu takes x (..., in) and matrices (out, in), not {tuple(x.shape)}, {tuple(up_HD.shape)} into and "
            f"{tuple(down_OH.shape)} out of the hidden units"
        )
    hidden, out = up_HD.shape[0], down_OH.shape[0]
    if gate_HD is None and biases[1] is not None:
        raise ConfigError("a glu without a gate has no bias of the gate; give gate_HD too, or neither")
    expected = (
        ("gate_HD", gate_HD, tuple(up_HD.shape)),
        ("down_OH", down_OH, (out, hidden)),
        ("up_bias_H", biases[0], (hidden,)),
        ("gate_bias_H", biases[1], (hidden,)),
        ("down_bias_O", biases[2], (out,)),
        ("up_HD", up_HD, tuple(up_HD.shape)),
    )
    for name, part, shape in expected:
        if part is None:
            continue
        if tuple(part.shape) != shape:
            raise ConfigError(f"{name} must have shape {shape} beside up_HD {tuple(up_HD.shape)}, not {part.shape}")
        check_one_type("a glu", x=x, **{name: part})
