"""What holds exactly for gated linear attention."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...kernels.linear_attention import gated_linear_attention
from ..companion import check
from .hybrid import leaked, model_of, streamed


def inputs(tokens: int = 200) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries, keys, values, and noise for gates."""
    q, k, v, noise = torch.randn(4, 1, 2, tokens, 32, generator=torch.Generator().manual_seed(0))
    return q, k, v, noise


def off(gate: Tensor, *, backend: str, double: bool = False) -> float:
    """How far a backend is from the recurrence in float64, relative to its norm; the worse of output and state."""
    q, k, v, _ = inputs()
    exact = [x.double() for x in (q, k, v, gate)]
    truth, last = gated_linear_attention(*exact, return_state=True, backend="reference")
    taken = exact if double else [q, k, v, gate]
    out, state = gated_linear_attention(*taken, return_state=True, backend=backend)
    return float(max((out - truth).norm() / truth.norm(), (state - last).norm() / last.norm()))


@check("gla", "chunks are the recurrence in float64, mild gates", at_most=1e-12)
def exact() -> float:
    return off(F.logsigmoid(inputs()[3]) / 16, backend="chunked", double=True)


@check("gla", "chunks are within 1e-5 of float64 under harsh gates, in float32", at_most=1e-5)
def harsh() -> float:
    return off(F.logsigmoid(4 * inputs()[3] - 4), backend="chunked")


@check("gla", "chunks are within 1e-5 of float64 where gates are shut, log-decay -inf", at_most=1e-5)
def shut() -> float:
    return off(torch.where(inputs()[3] > 1, -torch.inf, -0.01), backend="chunked")


@check("gla", "the naive chunk form (q e^b)(k e^-b)^T gives NaN under the same harsh gates")
def naive() -> float:
    q, k, v, noise = (x[:, :, :64] for x in inputs())
    reading = F.logsigmoid(4 * noise - 4).cumsum(2)
    out = ((q * reading.exp()) @ (k * (-reading).exp()).mT).tril() @ v
    return float(not out.isnan().any())


@check("gla", "one constant gate for a head is retention: (q k^T * gamma^(t - s)) v", at_most=1e-12)
def retention() -> float:
    q, k, v, _ = (x.double() for x in inputs(90))
    gamma = torch.tensor([0.9, 0.99], dtype=torch.float64)
    behind = torch.arange(90)[:, None] - torch.arange(90)
    expected = (q @ k.mT * (gamma[:, None, None] ** behind.clamp(min=0))).tril() @ v
    return float(
        (gated_linear_attention(q, k, v, gamma.log(), scale=1.0) - expected).abs().max() / expected.abs().max()
    )


@check("gla", "the gradient of the gate is the reverse sum of q dq - k dk", at_most=1e-9)
def gate_gradient() -> float:
    q, k, v, noise = (x[:, :, :70].double() for x in inputs())
    q, k, gate = (x.requires_grad_() for x in (q, k, F.logsigmoid(noise)))
    gated_linear_attention(q, k, v, gate, backend="chunked").square().sum().backward()
    assert q.grad is not None and k.grad is not None and gate.grad is not None
    expected = (q * q.grad - k * k.grad).flip(2).cumsum(2).flip(2)
    return float(((gate.grad - expected).abs().max() / expected.abs().max()).detach())


@check("gla", "the model reads in pieces as at once, and is causal, in float64", at_most=1e-12)
def decoding() -> float:
    return max(streamed(model_of("gla", "gla")), leaked(model_of("gla", "gla")))
