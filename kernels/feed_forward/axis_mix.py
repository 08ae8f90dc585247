"""A dense layer along any axis: what mixers and gated MLPs mix tokens with.

Source: Tolstikhin et al., 2021, arXiv:2105.01601; Tu et al., 2022, arXiv:2201.02973 (along a grid and inside blocks).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import ConfigError
from ..inputs import check_one_type


def axis_mix(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None, *, axis: int) -> Tensor:
    """y[..., o, ...] = sum over i of weight[o, i] x[..., i, ...] + bias[o] along `axis`.

    Shapes: x with I along the axis -> the same with O there. The matrix lies as in `nn.Linear`.

    Raises: ConfigError: x has no such axis, or another length along it.

    >>> axis_mix(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, -1.0]]), axis=0)
    tensor([[-2., -2.]])
    """
    _check(x, weight_OI, bias_O, axis)
    axis %= x.ndim
    before, after = x.shape[:axis], x.shape[axis + 1 :]
    flat = x.reshape(before.numel(), x.shape[axis], after.numel())
    mixed = weight_OI @ flat if bias_O is None else torch.add(weight_OI @ flat, bias_O[:, None])
    return mixed.reshape(*before, weight_OI.shape[0], *after)


def reference_axis_mix(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None, *, axis: int) -> Tensor:
    """The same as a sum, float64."""
    parts = x.double().movedim(axis, 0)
    rows = [sum(w * part for w, part in zip(row, parts, strict=True)) for row in weight_OI.double()]
    out = torch.stack([torch.as_tensor(row) for row in rows])
    if bias_O is not None:
        out = out + bias_O.double().reshape(-1, *[1] * (x.ndim - 1))
    return out.movedim(0, axis)


def _check(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None, axis: int) -> None:
    if weight_OI.ndim != 2 or not -x.ndim <= axis < x.ndim or x.shape[axis] != weight_OI.shape[1]:
        raise ConfigError(
            f"axis_mix takes x with as many entries along axis {axis} as its matrix (out, in) has columns, not "
            f"{tuple(x.shape)} and {tuple(weight_OI.shape)}"
        )
    check_one_type("axis_mix", x=x, weight_OI=weight_OI, bias_O=bias_O)
    if bias_O is not None and tuple(bias_O.shape) != (weight_OI.shape[0],):
        raise ConfigError(f"the bias of axis_mix must have shape {(weight_OI.shape[0],)}, not {tuple(bias_O.shape)}")
