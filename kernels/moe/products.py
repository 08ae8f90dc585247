"""Grouped products: rows that are sorted by expert, each expert's rows times its own matrix. What backends differ in.

Shapes: R rows, E experts, I features in, O features out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .routing import by_expert

Multiply = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(rows (R, I), weights (E, I, O), ends (E)) -> (R, O), without gradients."""

LEAST_ROWS = 16
"""MKL multiplies fewer in another order (float32, AVX-512), so that a row would depend on how many others there are."""


def loop_multiply(rows_RI: Tensor, weight_EIO: Tensor, ends_E: Tensor) -> Tensor:
    """One product an expert."""
    return multiply_each(rows_RI, weight_EIO, [(e, span.stop - span.start) for e, span in by_expert(ends_E)])


def multiply_each(
    rows_RI: Tensor,
    weight_EIO: Tensor,
    parts: list[tuple[int, int]],
    bias_EO: Tensor | None = None,
    out_RO: Tensor | None = None,
) -> Tensor:
    """One product for each (expert, number of its rows), with its bias, into `out_RO` where given.

    Few rows are filled up, so that a token's result does not depend on its batch mates.
    """
    if out_RO is None:
        out_RO = rows_RI.new_empty(len(rows_RI), weight_EIO.shape[2])
    sizes = [size for _, size in parts]
    weights, biases = weight_EIO.unbind(), None if bias_EO is None else bias_EO.unbind()
    # One call for all the views: at some dozen rows an expert, taking them one by one costs as much as a product.
    for (expert, size), rows, out in zip(parts, rows_RI.split(sizes), out_RO.split(sizes), strict=True):
        into = out
        if size < LEAST_ROWS:
            rows, into = F.pad(rows, (0, 0, 0, LEAST_ROWS - size)), out.new_empty(LEAST_ROWS, out.shape[1])
        if biases is None:
            torch.mm(rows, weights[expert], out=into)
        else:
            torch.addmm(biases[expert], rows, weights[expert], out=into)
        if into is not out:
            out.copy_(into[:size])
    return out_RO


def multiply_batch(rows_ERI: Tensor, weight_EIO: Tensor, bias_EO: Tensor | None = None) -> Tensor:
    """As many rows for each expert times its matrix, (E, R, O), with its bias; without gradients."""
    if bias_EO is None:
        return torch.bmm(rows_ERI, weight_EIO)
    return torch.baddbmm(bias_EO[:, None], rows_ERI, weight_EIO)


def outer_products(left_RI: Tensor, right_RO: Tensor, ends_E: Tensor) -> Tensor:
    """left^T right over the rows of each expert, (E, I, O); zeros for an expert without rows."""
    out_EIO = left_RI.new_zeros(len(ends_E), left_RI.shape[1], right_RO.shape[1])
    for expert, rows in by_expert(ends_E):
        torch.mm(left_RI[rows].t(), right_RO[rows], out=out_EIO[expert])
    return out_EIO


class Product(torch.autograd.Function):
    """A `Multiply` with its gradients: of the rows by the same, of the weights by one product an expert."""

    @staticmethod
    def forward(ctx: Any, rows_RI: Tensor, weight_EIO: Tensor, ends_E: Tensor, multiply: Multiply) -> Tensor:
        ctx.save_for_backward(rows_RI, weight_EIO, ends_E)
        ctx.multiply = multiply
        return multiply(rows_RI, weight_EIO, ends_E)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        rows_RI, weight_EIO, ends_E = ctx.saved_tensors
        grad_RO = grads[0].contiguous()
        of_rows = ctx.multiply(grad_RO, weight_EIO.mT, ends_E) if ctx.needs_input_grad[0] else None
        of_weights = outer_products(rows_RI, grad_RO, ends_E) if ctx.needs_input_grad[1] else None
        return of_rows, of_weights, None, None


def grouped_multiply(rows_RI: Tensor, weight_EIO: Tensor, ends_E: Tensor) -> Tensor:
    """torch's own grouped product, with its own gradients."""
    return F.grouped_mm(rows_RI, weight_EIO, offs=ends_E)


def grouped_refuses(x: Tensor, *weights: Tensor) -> str | None:
    """Why `grouped_multiply` cannot take matrices like these, or None."""
    if x.device.type not in ("cpu", "cuda"):
        return f"it runs on CPU and CUDA devices, not on {x.device.type}"
    if x.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"{x.dtype}: has float32, bfloat16, float16"
    for weight in weights:
        if not weight.is_contiguous() or weight.data_ptr() % 16:
            return "matrices must be contiguous and begin at a multiple of 16 bytes"
        for size in weight.shape[1:]:
            if size * weight.itemsize % 16:
                return f"a side of {size} in {x.dtype}: needs multiples of {16 // weight.itemsize}"
    return None
