"""The smaller kernels of the companion models against float64, on shapes and values drawn at random, and bad inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from outpace.errors import ConfigError, UnknownNameError
from outpace.kernels.attention import ClippedSoftmax, alibi_bias, alibi_slopes, attend
from outpace.kernels.convolution import causal_conv
from outpace.kernels.convolution.causal import reference_causal_conv
from outpace.kernels.feed_forward import glu
from outpace.kernels.packing import Packing
from outpace.kernels.quantised import quantise, quantised_linear
from outpace.kernels.sparsity import StatisticalSoftmax, statistical_threshold, statistical_top_k

torch.set_num_threads(1)
quick = settings(
    max_examples=30, deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


def normal(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@quick
@given(
    seed=st.integers(0, 99),
    queries=st.integers(1, 12),
    more=st.integers(0, 5),
    heads=st.sampled_from([(2, 2), (4, 2), (3, 1)]),
    causal=st.booleans(),
    window=st.sampled_from([None, 1, 3, 40]),
    masked=st.booleans(),
    biased=st.booleans(),
    cap=st.sampled_from([None, 2.0]),
    gated=st.sampled_from(["no", "head", "channel"]),
)
def test_attention_equals_its_formula(
    seed: int,
    queries: int,
    more: int,
    heads: tuple[int, int],
    causal: bool,
    window: int | None,
    masked: bool,
    biased: bool,
    cap: float | None,
    gated: str,
) -> None:
    keys = queries + more
    q = normal(seed, 2, heads[0], queries, 8)
    k, v = normal(seed + 1, 2, heads[1], keys, 8), normal(seed + 2, 2, heads[1], keys, 5)
    allowed = normal(seed + 3, 2, 1, queries, keys) > -0.5 if masked else None
    bias = normal(seed + 4, heads[0], queries, keys) if biased else None
    gate = {"no": None, "head": normal(seed, 2, heads[0], queries), "channel": normal(seed, 2, heads[0], queries, 5)}
    out = attend(q, k, v, causal=causal, window=window, allowed=allowed, bias=bias, soft_cap=cap, gate=gate[gated])
    scores = q.double() @ k.double().repeat_interleave(heads[0] // heads[1], 1).mT / 8**0.5
    scores = scores + (0 if bias is None else bias.double())
    scores = scores if cap is None else cap * (scores / cap).tanh()
    for t in range(queries):
        for s in range(keys):
            behind = t + more - s
            if (causal and behind < 0) or (window is not None and abs(behind) >= window):
                scores[:, :, t, s] = -torch.inf
    scores = scores if allowed is None else scores.masked_fill(~allowed, -torch.inf)
    truth = scores.softmax(-1).nan_to_num(0.0) @ v.double().repeat_interleave(heads[0] // heads[1], 1)
    opened = gate[gated]
    if opened is not None:
        truth = truth * (opened if opened.ndim == 4 else opened[..., None]).double().sigmoid()
    assert (out - truth).abs().max() < 1e-5


def test_clipped_softmax() -> None:
    q, k, v = (normal(i, 1, 2, 9, 4) for i in range(3))
    assert torch.allclose(attend(q, k, v, normaliser=ClippedSoftmax(gamma=0.0), causal=True),
                          attend(q, k, v, causal=True), atol=1e-6)  # fmt: skip
    scores = torch.tensor([[0.0, 0.0, -9.0]], requires_grad=True)
    weights = ClippedSoftmax(gamma=-0.1)(scores, None)
    assert weights[0, 2] == 0 and torch.allclose(weights[0, :2], torch.tensor([1.1 * 0.49997 - 0.1] * 2), atol=1e-4)
    assert torch.equal(torch.autograd.grad(weights[0, 2], scores)[0], torch.zeros(1, 3))
    with pytest.raises(ConfigError, match="gamma at most 0"):
        ClippedSoftmax(gamma=0.1)


def test_alibi_is_what_transformers_computes() -> None:
    mpt = pytest.importorskip("transformers.models.mpt.modeling_mpt")
    for heads in (1, 8, 12, 16, 20):
        theirs = mpt.build_mpt_alibi_tensor(heads, 7)  # only of the last query, (heads, 1, 7)
        if heads & (heads - 1) == 0:  # otherwise they order the heads in another way
            assert torch.allclose(alibi_bias(heads, 1, 7), theirs.reshape(heads, 1, 7), atol=1e-6)
        assert sorted(alibi_slopes(heads).tolist()) == pytest.approx(sorted((-theirs[:, 0, -2]).tolist()), rel=1e-5)
    assert torch.equal(alibi_bias(3, 5), alibi_bias(3, 5).mT)


@quick
@given(
    seed=st.integers(0, 99),
    tokens=st.integers(0, 12),
    width=st.integers(1, 5),
    cut=st.integers(0, 12),
    biased=st.booleans(),
)
def test_causal_convolution_equals_its_sum_and_may_be_taken_in_two(
    seed: int, tokens: int, width: int, cut: int, biased: bool
) -> None:
    x, weight, bias = normal(seed, 2, tokens, 3), normal(seed + 1, 3, width), normal(seed, 3) if biased else None
    out = causal_conv(x, weight, bias)
    assert (out - reference_causal_conv(x, weight, bias)).abs().max() < 1e-5 if tokens else out.shape == x.shape
    first, state = causal_conv(x[:, :cut], weight, bias, return_state=True)
    second = causal_conv(x[:, cut:], weight, bias, state=state)
    assert torch.allclose(torch.cat([first, second], 1), out, atol=1e-6)


@quick
@given(seed=st.integers(0, 99), act=st.sampled_from(["silu", "gelu", "gelu_tanh"]), gated=st.booleans())
def test_glu_equals_its_formula(seed: int, act: str, gated: bool) -> None:
    x, up, down = normal(seed, 2, 3, 4), normal(seed + 1, 6, 4), normal(seed + 2, 5, 6)
    gate, biases = (
        (normal(seed + 3, 6, 4) if gated else None),
        [normal(seed + i, n) for i, n in ((4, 6), (5, 6), (6, 5))],
    )
    out = glu(x, up, down, gate, activation=act, up_bias_H=biases[0], gate_bias_H=biases[1] if gated else None,
              down_bias_O=biases[2])  # fmt: skip
    a: Callable[[Tensor], Tensor] = {
        "silu": F.silu, "gelu": F.gelu, "gelu_tanh": lambda y: F.gelu(y, approximate="tanh")
    }[act]  # fmt: skip
    x, up, down, b, g, c = (y.double() for y in (x, up, down, *biases))
    hidden = x @ up.T + b
    hidden = a(hidden) if gate is None else a(x @ gate.double().T + g) * hidden
    assert (out - (hidden @ down.T + c)).abs().max() < 1e-4


def test_glu_computes_in_the_type_of_autocast() -> None:
    x, up, down = normal(0, 3, 4), normal(1, 6, 4), normal(2, 5, 6)
    with torch.autocast("cpu", torch.bfloat16):
        out = glu(x.bfloat16(), up, down, up)
    assert out.dtype == torch.bfloat16
    assert torch.allclose(out.float(), glu(x, up, down, up), atol=0.2, rtol=0.05)


@pytest.mark.parametrize(("width", "k", "spread"), [(1024, 82, 0.02), (256, 20, 0.03), (256, 64, 0.02)])
def test_statistical_top_k_keeps_about_k_of_normal_numbers(width: int, k: int, spread: float) -> None:
    x = normal(0, 512, width)
    kept = (statistical_top_k(x, k) > 0).sum(-1).float()
    assert abs(kept.mean() / k - 1) < spread
    laplace = torch.distributions.Laplace(0.0, 1.0).sample((512, width))
    assert (statistical_top_k(laplace, k) > 0).sum(-1).float().mean() < 0.95 * k or k / width > 0.2


def test_statistical_top_k_is_what_transformers_computes() -> None:
    gemma = pytest.importorskip("transformers.models.gemma3n.modeling_gemma3n")
    config = pytest.importorskip("transformers.models.gemma3n.configuration_gemma3n")
    layer = gemma.Gemma3nTextMLP(
        config.Gemma3nTextConfig(hidden_size=8, intermediate_size=64, activation_sparsity_pattern=[0.875],
                                 num_hidden_layers=1)
    )  # fmt: skip
    x = normal(1, 5, 64)
    assert torch.allclose(statistical_top_k(x, 8), layer._gaussian_topk(x), atol=1e-5)


@quick
@given(seed=st.integers(0, 99), width=st.integers(2, 40), k=st.integers(1, 40))
def test_threshold_over_allowed_numbers_only(seed: int, width: int, k: int) -> None:
    x, allowed = normal(seed, 6, width), normal(seed + 1, 6, width) > 0
    found = statistical_threshold(x, k, allowed=allowed)
    for row, mask, threshold in zip(x, allowed, found, strict=True):
        expected = statistical_threshold(row[mask], k) if mask.any() else torch.tensor([-torch.inf])
        assert torch.allclose(threshold, expected, atol=1e-4)
    assert torch.equal(statistical_top_k(x, width), x)


def test_statistical_softmax_drops_keys_and_keeps_few() -> None:
    q, k, v = (normal(i, 1, 2, 40, 8) for i in range(3))
    allowed = torch.ones(40, 40, dtype=torch.bool).tril().expand(1, 2, 40, 40)
    weights = StatisticalSoftmax(k=8)(q @ k.mT, allowed)
    assert torch.allclose(weights.sum(-1), torch.ones(1, 2, 40), atol=1e-5) and not weights[~allowed].any()
    assert torch.equal((weights > 0).sum(-1)[0, 0, :8], torch.arange(1, 9))
    assert 4 < (weights > 0).sum(-1).float()[..., 20:].mean() < 12
    assert torch.allclose(attend(q, k, v, causal=True, normaliser=StatisticalSoftmax(k=40)),
                          attend(q, k, v, causal=True), atol=1e-5)  # fmt: skip


@quick
@given(
    seed=st.integers(0, 99),
    width=st.integers(1, 70),
    bits=st.integers(2, 8),
    block=st.sampled_from([None, 1, 16, 64]),
    symmetric=st.booleans(),
    power=st.booleans(),
    size=st.sampled_from([0.0, 1e-6, 1.0, 1e4]),
)
def test_quantised_numbers_are_within_half_a_step(
    seed: int, width: int, bits: int, block: int | None, symmetric: bool, power: bool, size: float
) -> None:
    x = normal(seed, 3, width) * size
    made = quantise(x, bits=bits, block=block, symmetric=symmetric, power_of_two=power)
    back = made.dequantised()
    step = made.scale.expand(*made.codes.shape).flatten(-2)[..., :width]
    # Rounding the code of 0 may cost the ends of an asymmetric range another half.
    assert ((back - x).abs() <= (0.5 + 0.5 * (not symmetric)) * step * 1.001).all()
    again = quantise(back, bits=bits, block=block, symmetric=symmetric, power_of_two=power).dequantised()
    if symmetric and not power:
        assert torch.allclose(again, back, rtol=1e-5, atol=1e-30)
    if power:
        assert torch.equal(made.scale.log2(), made.scale.log2().round())


@quick
@given(
    seed=st.integers(0, 99),
    width=st.integers(1, 70),
    block=st.sampled_from([None, 16]),
    bits=st.sampled_from([4, 8]),
    symmetric=st.booleans(),
)
def test_quantised_products_are_those_of_what_the_codes_stand_for(
    seed: int, width: int, block: int | None, bits: int, symmetric: bool
) -> None:
    x, weight, bias = normal(seed, 2, 3, width), normal(seed + 1, 4, width), normal(seed, 4)
    codes = quantise(weight, bits=bits, block=block)
    rows = quantise(x.view(6, width), bits=bits, block=block and codes.block, symmetric=symmetric).dequantised()
    truth = rows.double() @ codes.dequantised().double().T + bias.double()
    out = quantised_linear(x, codes, bias, bits=bits, symmetric=symmetric)
    assert out.shape == (2, 3, 4) and (out.view(6, 4) - truth).abs().max() < 1e-5
    light = quantised_linear(x, codes, bias)
    assert torch.allclose(light, F.linear(x, codes.dequantised(), bias), atol=1e-6)


def test_blocks_hold_more_of_the_signal_than_one_scale() -> None:
    x = normal(0, 64, 256)
    x[:, 3] *= 60

    def noise(block: int | None) -> float:
        return float((quantise(x, bits=8, block=block).dequantised() - x).square().mean())

    assert noise(16) < noise(64) < noise(None) / 2
    assert quantise(x, bits=4, block=64).bits_a_number(scale_bits=8) == pytest.approx(4.125)


@quick
@given(seed=st.integers(0, 99), batch=st.integers(1, 4), tokens=st.integers(0, 9))
def test_packing_and_back(seed: int, batch: int, tokens: int) -> None:
    valid, x = normal(seed, batch, tokens) > 0, normal(seed, batch, tokens, 3).requires_grad_()
    packing = Packing.of(valid)
    rows = packing.pack(x)
    assert torch.equal(rows, x[valid]) and torch.equal(packing.unpack(rows), x * valid[..., None])
    assert torch.equal(packing.lengths(), valid.sum(1))
    packing.unpack(rows).sum().backward()
    assert torch.equal(x.grad, valid[..., None].expand_as(x).float())


A = torch.zeros(1, 2, 3, 4)
ROWS = torch.zeros(2, 4)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: attend(A, A[..., :3], A), "same width of heads"),
        (lambda: attend(A, A, A[:, :1]), "values must have"),
        (lambda: attend(A, A, A, window=0), "at least 1 key"),
        (lambda: attend(A, A, A, soft_cap=0.0), "more than 0"),
        (lambda: attend(A, A, A, gate=ROWS), "gate must have shape"),
        (lambda: attend(A, A, A, allowed=ROWS), "allowed must be bool"),
        (lambda: attend(A, A, A, bias=torch.zeros(5, 3)), "bias must be floating-point and broadcast"),
        (lambda: alibi_slopes(0), "at least 1 head"),
        (lambda: causal_conv(A[0], torch.zeros(3, 2)), "takes x"),
        (lambda: causal_conv(A[0], torch.zeros(4, 2).double()), "one floating-point type"),
        (lambda: causal_conv(A[0], torch.zeros(4, 2), state=A[0]), "state of this convolution"),
        (lambda: glu(ROWS, ROWS, ROWS), "down_OH must have shape"),
        (lambda: glu(ROWS, ROWS, ROWS.T, activation="gelu2"), "did you mean 'gelu'"),
        (lambda: glu(ROWS, ROWS, ROWS.T, gate_bias_H=ROWS), "without a gate"),
        (lambda: glu(ROWS[:, :2], ROWS, ROWS.T), "glu takes x"),
        (lambda: statistical_top_k(ROWS, 0), "at least 1"),
        (lambda: statistical_top_k(ROWS.long(), 1), "floating-point"),
        (lambda: statistical_threshold(ROWS, 1, allowed=ROWS), "allowed must be bool"),
        (lambda: quantise(ROWS, bits=9), "2 to 8 bits"),
        (lambda: quantise(ROWS, block=0), "at least 1 number"),
        (lambda: quantise(ROWS[:0]), "not empty"),
        (lambda: quantised_linear(ROWS[:, :3], quantise(ROWS)), "takes x"),
        (lambda: quantised_linear(ROWS, quantise(ROWS), ROWS), "bias must have shape"),
        (lambda: Packing.of(ROWS), "bool mask"),
        (lambda: Packing.of(ROWS > 0).pack(A), "this packing is for"),
        (lambda: Packing.of(ROWS > 0).unpack(A), "valid tokens"),
    ],
)
def test_bad_inputs_end_in_one_error(call: Callable[[], Any], says: str) -> None:
    with pytest.raises((ConfigError, UnknownNameError), match=says):
        call()
