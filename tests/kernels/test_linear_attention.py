"""Recurrences in chunks, in Triton and token by token are what they are in float64, however harsh the gates."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from outpace.errors import ConfigError, UnknownNameError
from outpace.kernels.linear_attention import DELTA_RULE, GATED, delta_rule, gated_linear_attention, scan

torch.set_num_threads(1)
quick = settings(
    max_examples=25, deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
GATES = {
    "mild": lambda noise: F.logsigmoid(noise) / 16,
    "harsh": lambda noise: F.logsigmoid(4 * noise - 4),
    "cliffs": lambda noise: torch.where(noise > 1, -1e4, -0.01),
    "shut": lambda noise: torch.where(noise > 1, -torch.inf, -0.01),
    "open": torch.zeros_like,
}
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 3e-3, torch.bfloat16: 2e-2}


def far(out: Tensor, truth: Tensor) -> float:
    """How far `out` is from `truth`, relative to its norm; NaN anywhere stays NaN."""
    return float((out.double() - truth.double()).norm() / truth.double().norm().clamp(min=1e-30))


def inputs(seed: int, tokens: int, width: int, values: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    q, k = torch.randn(2, 2, 2, tokens, width, generator=generator)
    v = torch.randn(2, 2, tokens, values, generator=generator)
    return [x.to(dtype) for x in (q, k, v)]


def gates(seed: int, kind: str, shape: tuple[int, ...]) -> Tensor:
    return GATES[kind](torch.randn(shape, generator=torch.Generator().manual_seed(seed + 1)))


@pytest.mark.parametrize("backend", ["chunked", "recurrent", "auto"])
@quick
@given(
    seed=st.integers(0, 999),
    tokens=st.one_of(st.integers(1, 20), st.integers(21, 150)),
    width=st.sampled_from([1, 8, 24]),
    values=st.sampled_from([1, 5, 32]),
    kind=st.sampled_from(list(GATES)),
    form=st.sampled_from(["channel", "head", "constant"]),
    dtype=st.sampled_from(list(TOLERANCE)),
    state=st.booleans(),
)
def test_gated_equals_float64(
    backend: str,
    seed: int,
    tokens: int,
    width: int,
    values: int,
    kind: str,
    form: str,
    dtype: torch.dtype,
    state: bool,
) -> None:
    q, k, v = inputs(seed, tokens, width, values, dtype)
    shape = {"channel": (2, 2, tokens, width), "head": (2, 2, tokens), "constant": (2,)}[form]
    gate = gates(seed, kind, shape)
    initial = torch.randn(2, 2, width, values) if state else None
    exact = [x.double() for x in (q, k, v, gate)]
    truth, last = gated_linear_attention(*exact, initial_state=initial, return_state=True, backend="reference")
    out, end = gated_linear_attention(q, k, v, gate, initial_state=initial, return_state=True, backend=backend)
    assert out.dtype == dtype and out.isfinite().all()
    assert far(out, truth) <= TOLERANCE[dtype] and far(end, last) <= max(TOLERANCE[dtype] / 10, 1e-12)


@pytest.mark.parametrize(
    ("tokens", "width", "values", "kind", "form", "dtype"),
    [
        (19, 24, 5, "harsh", "channel", torch.float32),
        (33, 8, 40, "shut", "channel", torch.float32),
        (16, 1, 1, "cliffs", "head", torch.float32),
        (1, 16, 16, "mild", "constant", torch.float16),
    ],
)
def test_triton_equals_float64(tokens: int, width: int, values: int, kind: str, form: str, dtype: torch.dtype) -> None:
    pytest.importorskip("triton")
    q, k, v = (x[:1] for x in inputs(2, tokens, width, values, dtype))
    gate = gates(2, kind, {"channel": (1, 2, tokens, width), "head": (1, 2, tokens), "constant": (2,)}[form])
    initial = torch.randn(1, 2, width, values)
    exact = [x.double() for x in (q, k, v, gate)]
    truth, last = gated_linear_attention(*exact, initial_state=initial, return_state=True, backend="reference")
    out, end = gated_linear_attention(q, k, v, gate, initial_state=initial, return_state=True, backend="triton")
    assert out.dtype == dtype and far(out, truth) <= TOLERANCE[dtype] and far(end, last) <= TOLERANCE[dtype]


def test_the_naive_chunk_form_fails_where_ours_holds() -> None:
    q, k, v = inputs(0, 64, 32, 32)
    gate = gates(0, "harsh", (2, 2, 64, 32))
    reading = gate.cumsum(2)
    naive = ((q * reading.exp()) @ (k * (-reading).exp()).mT).tril() @ v
    assert naive.isnan().any()
    truth = gated_linear_attention(*(x.double() for x in (q, k, v, gate)), scale=1.0, backend="reference")
    assert far(gated_linear_attention(q, k, v, gate, scale=1.0, backend="chunked"), truth) <= 1e-5


@pytest.mark.parametrize("form", ["channel", "head"])
def test_gradients_are_those_of_the_recurrence(form: str) -> None:
    q, k, v = (x.requires_grad_() for x in inputs(3, 37, 6, 5, torch.float64))
    gate = gates(3, "harsh", (2, 2, 37, 6)[: 4 if form == "channel" else 3]).double().requires_grad_()
    state = torch.randn(2, 2, 6, 5, dtype=torch.float64, requires_grad=True)
    found = []
    for backend in ("chunked", "recurrent", "reference"):
        out, last = gated_linear_attention(q, k, v, gate, initial_state=state, return_state=True, backend=backend)
        loss = out.sin().sum() + last.cos().sum()
        found.append(torch.autograd.grad(loss, (q, k, v, gate, state)))
    for ours in found[:2]:
        assert all(far(mine, truth) < 1e-10 for mine, truth in zip(ours, found[2], strict=True))


def test_gradients_are_finite_where_a_gate_is_shut() -> None:
    q, k, v = inputs(4, 30, 8, 8)
    gate = gates(4, "shut", (2, 2, 30, 8)).requires_grad_()
    gated_linear_attention(q, k, v, gate, backend="chunked").sum().backward()
    assert gate.grad is not None and gate.grad.isfinite().all()


@quick
@given(seed=st.integers(0, 99), cut=st.integers(0, 90), backend=st.sampled_from(["auto", "recurrent", "chunked"]))
def test_a_sequence_may_be_taken_in_two(seed: int, cut: int, backend: str) -> None:
    q, k, v = inputs(seed, 90, 8, 8, torch.float64)
    gate = gates(seed, "harsh", (2, 2, 90, 8)).double()
    whole = gated_linear_attention(q, k, v, gate, backend="chunked")
    first, state = gated_linear_attention(*(x[:, :, :cut] for x in (q, k, v, gate)), return_state=True, backend=backend)
    second = gated_linear_attention(*(x[:, :, cut:] for x in (q, k, v, gate)), initial_state=state)
    assert far(torch.cat([first, second], 2), whole) < 1e-12


def test_an_open_gate_is_causal_linear_attention() -> None:
    q, k, v = inputs(5, 70, 8, 8, torch.float64)
    assert far(gated_linear_attention(q, k, v, torch.zeros(2), scale=1.0), (q @ k.mT).tril() @ v) < 1e-12


@pytest.mark.parametrize("backend", ["chunked", "recurrent", "auto"])
@quick
@given(
    seed=st.integers(0, 999),
    tokens=st.integers(1, 140),
    kind=st.sampled_from(["none", *GATES]),
    dtype=st.sampled_from([torch.float64, torch.float32]),
    state=st.booleans(),
)
def test_delta_equals_float64(backend: str, seed: int, tokens: int, kind: str, dtype: torch.dtype, state: bool) -> None:
    q, k, v = inputs(seed, tokens, 12, 7, dtype)
    k, beta = F.normalize(k, dim=-1), torch.rand(2, 2, tokens, dtype=dtype)
    gate = None if kind == "none" else gates(seed, kind, (2, 2, tokens)).to(dtype)
    initial = torch.randn(2, 2, 12, 7) if state else None
    exact = [None if x is None else x.double() for x in (q, k, v, beta, gate)]
    truth, last = delta_rule(*exact, initial_state=initial, return_state=True, backend="reference")
    out, end = delta_rule(q, k, v, beta, gate, initial_state=initial, return_state=True, backend=backend)
    assert out.dtype == dtype and far(out, truth) <= TOLERANCE[dtype] and far(end, last) <= TOLERANCE[dtype]


def test_delta_gradients_are_those_of_the_recurrence() -> None:
    q, k, v = (x.requires_grad_() for x in inputs(6, 21, 6, 5, torch.float64))
    beta = torch.rand(2, 2, 21, dtype=torch.float64, requires_grad=True)
    gate = gates(6, "harsh", (2, 2, 21)).double().requires_grad_()
    ours, truth = (
        torch.autograd.grad(delta_rule(q, k, v, beta, gate, backend=b).sin().sum(), (q, k, v, beta, gate))
        for b in ("chunked", "reference")
    )
    assert all(far(mine, true) < 1e-10 for mine, true in zip(ours, truth, strict=True))


def test_orthogonal_keys_are_recalled_exactly_and_beta_zero_writes_nothing() -> None:
    keys = torch.linalg.qr(torch.randn(16, 16, dtype=torch.float64)).Q[None, None]
    v = torch.randn(1, 1, 16, 9, dtype=torch.float64)
    _, state = delta_rule(keys, keys, v, torch.ones(1, 1, 16, dtype=torch.float64), return_state=True)
    assert (keys @ state - v).abs().max() < 1e-12
    _, kept = delta_rule(
        keys, keys, 2 * v, torch.zeros(1, 1, 16, dtype=torch.float64), initial_state=state, return_state=True
    )
    assert torch.equal(kept, state)


def test_gated_delta_rule_is_what_transformers_computes() -> None:
    qwen = pytest.importorskip("transformers.models.qwen3_next.modeling_qwen3_next")
    q, k, v = inputs(7, 130, 16, 24)
    k, q = F.normalize(k, dim=-1), F.normalize(q, dim=-1)
    beta, gate = torch.rand(2, 2, 130), gates(7, "mild", (2, 2, 130))
    theirs = qwen.torch_chunk_gated_delta_rule(
        *(x.transpose(1, 2) for x in (q, k, v, gate, beta)), initial_state=None, output_final_state=True
    )
    ours, state = delta_rule(q, k, v, beta, gate, return_state=True)
    assert far(ours, theirs[0].transpose(1, 2)) < 1e-5 and far(state, theirs[1]) < 1e-5


@quick
@given(
    seed=st.integers(0, 999),
    tokens=st.integers(0, 70),
    kind=st.sampled_from(list(GATES)),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
    state=st.booleans(),
)
def test_scan_equals_float64(seed: int, tokens: int, kind: str, dtype: torch.dtype, state: bool) -> None:
    x = torch.randn(2, tokens, 6, generator=torch.Generator().manual_seed(seed)).to(dtype)
    gate = gates(seed, kind, (2, tokens, 6)).to(dtype)
    initial = torch.randn(2, 6).to(dtype) if state else None
    truth = scan(
        x.double(),
        gate.double(),
        initial_state=None if initial is None else initial.double(),
        backend="reference",
    )
    out = scan(x, gate, initial_state=initial)
    assert out.dtype == dtype and out.shape == x.shape and far(out, truth) <= TOLERANCE[dtype]


def test_which_backend_is_taken() -> None:
    q, k, v = inputs(8, 40, 8, 8)
    gated_linear_attention(q, k, v, torch.zeros(2))
    assert GATED.last == "chunked"
    gated_linear_attention(*(x[:, :, :1] for x in (q, k, v)), torch.zeros(2))
    assert GATED.last == "recurrent"
    delta_rule(q, k, v, torch.ones(2, 2, 40))
    assert DELTA_RULE.last == "chunked"


X = torch.zeros(2, 2, 6, 4)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"k": X[..., :3]}, "q and k of one shape"),
        ({"v": X[:, :, :5]}, "same batch, heads and tokens"),
        ({"q": X[0], "k": X[0]}, "q and k of one shape"),
        ({"v": X.double()}, "one floating-point type"),
        ({"q": X.long(), "k": X.long(), "v": X.long()}, "one floating-point type"),
        ({"log_decay": torch.zeros(3)}, "log_decay must have shape"),
        ({"log_decay": torch.zeros(2, 2, 6, 3)}, "log_decay must have shape"),
        ({"log_decay": torch.zeros(2, dtype=torch.long)}, "log_decay must be floating-point"),
        ({"initial_state": torch.zeros(2, 2, 4, 5)}, "initial state must have shape"),
        ({"initial_state": torch.zeros(2, 2, 4, 4, dtype=torch.long)}, "initial state must be floating-point"),
        ({"backend": "fast"}, "no backend 'fast'"),
    ],
)
def test_bad_inputs_end_in_one_error(change: dict[str, Any], says: str) -> None:
    good: dict[str, Any] = {"q": X, "k": X, "v": X, "log_decay": torch.zeros(2)}
    with pytest.raises((ConfigError, UnknownNameError), match=says):
        gated_linear_attention(**{**good, **change})
    if "log_decay" not in change:
        with pytest.raises((ConfigError, UnknownNameError), match=says):
            delta_rule(**{**good, "beta": change.get("q", X)[..., 0], **change})


def test_other_bad_inputs_too() -> None:
    with pytest.raises(ConfigError, match="beta must have shape"):
        delta_rule(X, X, X, X)
    with pytest.raises(ConfigError, match=r"shape \(2, 2, 6\) or \(2,\)"):
        delta_rule(X, X, X, X[..., 0], X)
    with pytest.raises(ConfigError, match="x and log_decay of one shape"):
        scan(X, X)
    with pytest.raises(ConfigError, match="initial state must have shape"):
        scan(X[0], X[0], initial_state=X[0])
    with pytest.raises(ConfigError, match="must be floating-point"):
        scan(X[0], X[0].long())
    with pytest.raises(ConfigError, match="has no gradients"):
        gated_linear_attention(X.clone().requires_grad_(), X, X, torch.zeros(2), backend="triton")
