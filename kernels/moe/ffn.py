"""Every token through the feed-forward networks chosen for it.

Shapes: E experts, N tokens, K experts a token, R = N K rows, D features in, H hidden units an expert, O features out.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import torch
import torch.nn.functional as F
from torch import Tensor

from ..dispatch import OPERATIONS, Backend, Operation
from ..triton_limits import triton_backend
from .experts import Experts, check_choice, check_experts
from .products import Multiply, Product, grouped_multiply, grouped_refuses, loop_multiply
from .reference import reference_expert_ffn
from .routing import Combine, Dispatch, route
from .stream import stream

TRITON = f"{__name__.rpartition('.')[0]}.triton"


def expert_ffn(x: Tensor, experts: Experts, expert_index: Tensor, gates: Tensor, *, backend: str = "auto") -> Tensor:
    """sum over k of gates[t, k] FFN_e(x[t]), e = expert_index[t, k], with gradients of x, the gates and the weights.

    No token is dropped, and what one gets depends on no other, up to rounding. With "triton" and "loop" it is the same
    bit for bit, if H is a multiple of 32 and, for "loop", if the machine's matrix product gives a row one result among
    however many from 16 on (as MKL does).

    Shapes: x (..., D), expert_index and gates (..., K) -> (..., O) of x's type.

    Args:
        experts: their weights, of x's type; under autocast, both are cast to its type, as by `F.linear`.
        expert_index: int64 or int32, 0 to E - 1; one that is named twice counts twice.
        gates: what each chosen expert is multiplied by, of any floating-point type.
        backend: "auto", or a name in `EXPERT_FFN.names()`.

    Raises: ConfigError, UnknownNameError, MissingDependencyError: see `Operation.choose`.

    >>> one, two = torch.eye(2), 2 * torch.eye(2)
    >>> experts = Experts(activation="silu", up_EDH=torch.stack([one, one]), down_EHO=torch.stack([one, two]))
    >>> x = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    >>> expert_ffn(x, experts, torch.tensor([[0], [1]]), torch.tensor([[1.0], [1.0]]))
    tensor([[0.0000, 0.7311],
            [0.0000, 1.4621]])
    """
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, experts = x.to(dtype), experts.to(dtype)
    check_experts(x, experts)
    check_choice(x, expert_index, gates, experts.count)
    k = expert_index.shape[-1]

    def every_token(run: Callable[..., Tensor]) -> Tensor:
        if not expert_index.numel():
            return x.new_zeros(*x.shape[:-1], experts.down_EHO.shape[2])
        out_NO = run(x.reshape(-1, x.shape[-1]), experts, expert_index.reshape(-1, k), gates.reshape(-1, k))
        return out_NO.view(*x.shape[:-1], -1)

    return EXPERT_FFN.run(every_token, x, experts, expert_index, gates, backend=backend)


def _sorted(product: Multiply) -> Callable[..., Tensor]:
    """A backend that sorts tokens by expert and multiplies with `product`, which has gradients."""

    def run(x_ND: Tensor, experts: Experts, expert_index_NK: Tensor, gates_NK: Tensor) -> Tensor:
        routing = route(expert_index_NK, experts.count)

        def linear(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            out = product(rows, weight, routing.ends_E)
            return out if bias is None else out.add_(bias.index_select(0, routing.expert_R))

        rows_RD = Dispatch.apply(x_ND, routing.token_R, routing.row_NK)
        gate_RH = None if experts.gate_EDH is None else linear(rows_RD, experts.gate_EDH, experts.gate_bias_EH)
        hidden_RH = experts.activate(linear(rows_RD, experts.up_EDH, experts.up_bias_EH), gate_RH)
        # Before the last matrix and not after it: an expert has fewer hidden units than features.
        gates_R = gates_NK.flatten().index_select(0, routing.choice_R)
        hidden_RH = (hidden_RH * gates_R[:, None]).to(x_ND.dtype)
        return Combine.apply(linear(hidden_RH, experts.down_EHO, None), routing.token_R, routing.row_NK)

    return run


def _looped_product(rows_RI: Tensor, weight_EIO: Tensor, ends_E: Tensor) -> Tensor:
    return Product.apply(rows_RI, weight_EIO, ends_E, loop_multiply)


def _loop(x_ND: Tensor, experts: Experts, expert_index_NK: Tensor, gates_NK: Tensor) -> Tensor:
    if torch.is_grad_enabled() and any(one.requires_grad for one in (x_ND, gates_NK, *experts.weights().values())):
        return _sorted(_looped_product)(x_ND, experts, expert_index_NK, gates_NK)
    return stream(x_ND, experts, expert_index_NK, gates_NK)


def _triton(rows_RI: Tensor, weight_EIO: Tensor, ends_E: Tensor) -> Tensor:
    return Product.apply(rows_RI, weight_EIO, ends_E, import_module(TRITON).multiply)


def _grouped_refuses(x: Tensor, experts: Experts, expert_index: Tensor, gates: Tensor) -> str | None:
    return grouped_refuses(x, *(weight for weight in experts.weights().values() if weight.ndim == 3))


def _grouped_hesitates(x: Tensor, experts: Experts, expert_index: Tensor, gates: Tensor) -> str | None:
    if x.device.type != "cuda":
        return "one product an expert is as fast on a CPU, and a row then depends on itself only"
    if x.dtype != torch.bfloat16 or torch.cuda.get_device_capability(x.device) < (9, 0):
        return "torch multiplies expert by expert, unless it is bfloat16 on a card of compute capability 9.0"
    return None


def _reference(x_ND: Tensor, experts: Experts, expert_index_NK: Tensor, gates_NK: Tensor) -> Tensor:
    return reference_expert_ffn(x_ND, experts, expert_index_NK, gates_NK).to(x_ND.dtype)


EXPERT_FFN = OPERATIONS.add(
    "routed experts",
    Operation(
        name="routed experts",
        backends=[
            Backend(
                name="grouped",
                run=_sorted(grouped_multiply),
                missing=lambda: None if hasattr(F, "grouped_mm") else f"torch {torch.__version__} has no grouped_mm",
                refuses=_grouped_refuses,
                hesitates=_grouped_hesitates,
            ),
            triton_backend(TRITON, refuses="multiply_refuses", run=_sorted(_triton)),
            Backend(name="loop", run=_loop),
            Backend(name="reference", run=_reference, hesitates=lambda *_: "every expert runs, in float64, for tests"),
        ],
    ),
)
