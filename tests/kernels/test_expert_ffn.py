"""Routed experts: every backend gives the reference's output and gradients, whoever shares the batch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from outpace.errors import ConfigError, UnknownNameError
from outpace.kernels.feed_forward import ACTIVATIONS
from outpace.kernels.moe import EXPERT_FFN, Experts, expert_ffn
from outpace.kernels.moe.products import LEAST_ROWS
from outpace.kernels.moe.routing import route

FAST = ["loop", "grouped", "triton"]
Choice = tuple[Tensor, Tensor]


@pytest.fixture(params=FAST)
def backend(request: pytest.FixtureRequest) -> str:
    """Every backend but the reference, where it can run."""
    missing = next(one for one in EXPERT_FFN.backends if one.name == request.param).missing()
    if missing is not None:
        pytest.skip(missing)
    if request.param == "triton" and not pytest.importorskip("outpace.kernels.moe.triton").INTERPRETED:
        pytest.skip("TRITON_INTERPRET is off")
    return request.param


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """Memory that is allocated and not written reads NaN."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def random_experts(
    *,
    count: int = 5,
    width: int = 16,
    hidden: int = 8,
    out: int = 16,
    activation: str = "gelu_tanh",
    gated: bool = False,
    biased: bool = True,
    dtype: torch.dtype = torch.float32,
) -> Experts:
    """Weights such that outputs are about as large as inputs; trainable."""

    def weights(*shape: int) -> Tensor:
        return (torch.randn(shape) / math.sqrt(shape[1])).to(dtype).requires_grad_()

    return Experts(
        activation=activation,
        up_EDH=weights(count, width, hidden),
        down_EHO=weights(count, hidden, out),
        gate_EDH=weights(count, width, hidden) if gated else None,
        up_bias_EH=weights(count, hidden) if biased else None,
        gate_bias_EH=weights(count, hidden) if gated and biased else None,
    )


def random_choice(tokens: int, experts: int, k: int, *, first: int = 0) -> Choice:
    """k different experts, none before `first`, and a gate for each."""
    index = torch.rand(tokens, experts - first).topk(k).indices + first
    return index, torch.rand(tokens, k, requires_grad=True)


def output_and_gradients(x: Tensor, experts: Experts, choice: Choice, backend: str) -> list[Tensor]:
    """The output, then the gradients of x, of the gates and of every weight, zeros where there is none."""
    inputs = [x, choice[1], *experts.weights().values()]
    out = expert_ffn(x, experts, *choice, backend=backend)
    if not out.requires_grad:
        return [out, *(torch.zeros_like(one) for one in inputs)]
    towards = torch.randn(out.shape, generator=torch.Generator().manual_seed(7), device="cpu").to(out)
    return [out.detach(), *torch.autograd.grad(out, inputs, towards)]


def difference(found: list[Tensor], truth: list[Tensor]) -> float:
    """Largest difference between tensors, each relative to the largest number in the true one; infinite where NaN.

    At least a tenth counts as the largest number: a gate's gradient is a sum of numbers around one that may be near 0.
    """
    worst = 0.0
    for one, true in zip(found, truth, strict=True):
        assert one.shape == true.shape and one.dtype == true.dtype
        if one.numel():
            error = (one.detach().double() - true.double()).abs().max()
            largest = true.detach().double().abs().max().clamp_min(0.1)
            worst = max(worst, (error / largest).nan_to_num(nan=math.inf).item())
    return worst


@st.composite
def problems(draw: st.DrawFn, most: int = 90) -> tuple[Tensor, Experts, Choice]:
    """Tokens, experts and a choice of up to all five of them."""
    torch.manual_seed(draw(st.integers(0, 999)))
    width, hidden, out = (draw(st.sampled_from([4, 16, 28, 132])) for _ in range(3))
    activation, gated, biased = draw(st.sampled_from(sorted(ACTIVATIONS))), draw(st.booleans()), draw(st.booleans())
    experts = random_experts(width=width, hidden=hidden, out=out, activation=activation, gated=gated, biased=biased)
    tokens = draw(st.integers(0, most))
    choice = random_choice(tokens, experts.count, draw(st.integers(0, experts.count)))
    return torch.randn(tokens, width, requires_grad=True), experts, choice


@pytest.mark.parametrize("backend", ["loop", "grouped"])
@settings(max_examples=60, deadline=None)
@given(problem=problems())
def test_output_and_gradients_equal_the_reference(backend: str, problem: tuple[Tensor, Experts, Choice]) -> None:
    truth = output_and_gradients(*problem, "reference")
    assert difference(output_and_gradients(*problem, backend), truth) < 1e-5
    x, experts, choice = problem
    with torch.no_grad():
        assert difference([expert_ffn(x, experts, *choice, backend=backend)], truth[:1]) < 1e-5


@settings(max_examples=12, deadline=None)
@given(problem=problems(most=70))
def test_the_triton_kernel_equals_the_reference(problem: tuple[Tensor, Experts, Choice]) -> None:
    if not pytest.importorskip("outpace.kernels.moe.triton").INTERPRETED:
        pytest.skip("TRITON_INTERPRET is off")
    truth = output_and_gradients(*problem, "reference")
    assert difference(output_and_gradients(*problem, "triton"), truth) < 1e-5


@pytest.mark.parametrize("k", [0, 1, 2, 12])
def test_twelve_experts_of_which_one_gets_nothing(backend: str, k: int) -> None:
    torch.manual_seed(k)
    experts = random_experts(count=13, width=32, hidden=8, out=32)
    x, choice = torch.randn(2, 50, 32, requires_grad=True), random_choice(100, 13, k, first=1)
    shaped = choice[0].view(2, 50, k), choice[1].view(2, 50, k)
    found = output_and_gradients(x, experts, shaped, backend)
    assert found[0].shape == (2, 50, 32)
    assert difference(found, output_and_gradients(x, experts, shaped, "reference")) < 1e-5
    assert all(not one[0].any() for one in found[3:])  # the gradients of the weights of expert 0


@pytest.mark.parametrize("gated", [False, True])
def test_the_experts_of_a_split_layer_add_up_to_it(backend: str, gated: bool) -> None:
    torch.manual_seed(0)
    experts = random_experts(count=4, width=16, hidden=8, out=12, gated=gated)
    x = torch.randn(40, 16)
    every = torch.arange(4).expand(40, 4)
    up, gate = (None if one is None else one.mT.flatten(0, 1) for one in (experts.up_EDH, experts.gate_EDH))
    biases = (experts.up_bias_EH, experts.gate_bias_EH)
    up_bias, gate_bias = (None if one is None else one.flatten() for one in biases)
    assert up is not None
    hidden = torch.nn.functional.linear(x, up, up_bias)
    act = ACTIVATIONS[experts.activation]
    hidden = act(hidden) if gate is None else act(torch.nn.functional.linear(x, gate, gate_bias)) * hidden
    dense = hidden @ experts.down_EHO.flatten(0, 1)
    for trained in (False, True):
        with torch.set_grad_enabled(trained):
            out = expert_ffn(x, experts, every, torch.ones(1).expand(40, 4), backend=backend)
        assert difference([out], [dense]) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_near_the_reference(backend: str, dtype: torch.dtype) -> None:
    if backend == "triton" and dtype == torch.bfloat16:
        pytest.skip("Triton's interpreter multiplies bfloat16 wrongly")
    torch.manual_seed(0)
    experts = random_experts(width=64, hidden=32, out=64, dtype=dtype)
    x, choice = torch.randn(70, 64).to(dtype).requires_grad_(), random_choice(70, 5, 2)
    found = output_and_gradients(x, experts, choice, backend)
    truth = output_and_gradients(x, experts, choice, "reference")
    with torch.no_grad():
        found, truth = [expert_ffn(x, experts, *choice, backend=backend), *found], [truth[0], *truth]
    assert difference(found, truth) < (6e-3 if dtype == torch.float16 else 4e-2)


def test_a_row_is_the_same_bit_for_bit_whoever_shares_the_call() -> None:
    """Triton's tiles have one size. The 32 hidden units matter: torch's activations finish odd ends in another way."""
    if not pytest.importorskip("outpace.kernels.moe.triton").INTERPRETED:
        pytest.skip("TRITON_INTERPRET is off")
    torch.manual_seed(0)
    experts = random_experts(width=48, hidden=32, out=48, gated=True)
    x, (index, gates) = torch.randn(200, 48), random_choice(200, 5, 2)
    with torch.no_grad():
        among = expert_ffn(x, experts, index, gates, backend="triton")
        for some in (slice(0, 3), slice(100, 190), slice(199, 200)):
            alone = expert_ffn(x[some], experts, index[some], gates[some], backend="triton")
            assert torch.equal(alone, among[some])


def test_the_loop_never_multiplies_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of few rows are where CPU libraries change the order of their sums."""
    seen: list[int] = []
    multiply = torch.mm

    def watched(a: Tensor, b: Tensor, **options: Tensor) -> Tensor:
        seen.append(len(a))
        return multiply(a, b, **options)

    torch.manual_seed(0)
    experts = random_experts()
    x, (index, gates) = torch.randn(60, 16), random_choice(60, 5, 2)
    monkeypatch.setattr(torch, "mm", watched)
    with torch.no_grad():
        among = expert_ffn(x, experts, index, gates, backend="loop")
        alone = expert_ffn(x[:3], experts, index[:3], gates[:3], backend="loop")
    assert min(seen) == LEAST_ROWS and max(seen) > LEAST_ROWS
    torch.testing.assert_close(alone, among[:3], rtol=1e-5, atol=1e-6)


def test_an_expert_named_twice_counts_twice(backend: str) -> None:
    torch.manual_seed(0)
    experts, x = random_experts(), torch.randn(20, 16)
    once = expert_ffn(x, experts, torch.full((20, 1), 3), torch.ones(20, 1), backend=backend)
    twice = expert_ffn(x, experts, torch.full((20, 2), 3), torch.full((20, 2), 0.5), backend=backend)
    torch.testing.assert_close(once, twice, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("trained", [False, True])
def test_inputs_may_lie_anyhow_in_memory(backend: str, trained: bool) -> None:
    torch.manual_seed(0)
    experts = random_experts()
    x = torch.randn(16, 3, 20).permute(2, 1, 0)
    index, gates = torch.randint(0, 5, (2, 3, 20)).permute(2, 1, 0), torch.rand(2, 3, 20).permute(2, 1, 0)
    with torch.set_grad_enabled(trained):
        out = expert_ffn(x, experts, index.to(torch.int32), gates.double(), backend=backend)
    dense = expert_ffn(x.contiguous(), experts, index.contiguous(), gates.contiguous(), backend="reference")
    torch.testing.assert_close(out, dense, rtol=1e-5, atol=1e-5)


def test_only_what_is_trained_gets_gradients(backend: str) -> None:
    torch.manual_seed(0)
    experts = random_experts()
    frozen = replace(experts, up_EDH=experts.up_EDH.detach(), down_EHO=experts.down_EHO.detach())
    x, (index, gates) = torch.randn(20, 16), random_choice(20, 5, 2)
    expert_ffn(x, frozen, index, gates, backend=backend).sum().backward()
    assert gates.grad is not None and experts.up_bias_EH is not None and experts.up_bias_EH.grad is not None
    assert x.grad is None and frozen.up_EDH.grad is None and frozen.down_EHO.grad is None


def test_derivatives_are_right_to_float64() -> None:
    torch.manual_seed(0)
    experts = random_experts(count=3, width=4, hidden=3, out=5, gated=True, dtype=torch.float64)
    x, (index, gates) = torch.randn(7, 4, dtype=torch.float64, requires_grad=True), random_choice(7, 3, 2)
    names = list(experts.weights())

    def call(x: Tensor, gates: Tensor, *weights: Tensor) -> Tensor:
        return expert_ffn(x, replace(experts, **dict(zip(names, weights, strict=True))), index, gates, backend="loop")

    gates = gates.detach().double().requires_grad_()
    assert torch.autograd.gradcheck(call, (x, gates, *experts.weights().values()))
    with torch.no_grad():
        exact = expert_ffn(x, experts, index, gates, backend="reference")
        torch.testing.assert_close(call(x, gates, *experts.weights().values()), exact)


def test_autocast_decides_the_type() -> None:
    experts, x = random_experts(), torch.randn(20, 16)
    index, gates = random_choice(20, 5, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = expert_ffn(x, experts, index, gates)
    out.float().sum().backward()
    assert out.dtype == torch.bfloat16 and experts.up_EDH.grad is not None
    assert experts.up_EDH.grad.dtype == torch.float32


def test_rows_are_sorted_by_expert_and_come_back() -> None:
    routing = route(torch.tensor([[2, 0], [0, 3], [2, 2]]), 5)
    assert routing.expert_R.tolist() == [0, 0, 2, 2, 2, 3]
    assert routing.token_R.tolist() == [0, 1, 0, 2, 2, 1]
    assert routing.ends_E.tolist() == [2, 2, 5, 6, 6]
    assert routing.row_NK.tolist() == [[2, 0], [1, 5], [3, 4]]


def test_tiles_cover_every_row_once() -> None:
    tiles_of = pytest.importorskip("outpace.kernels.moe.triton").tiles_of
    ends = torch.tensor([0, 64, 64, 65, 300, 300], dtype=torch.int32)
    tiles = [tile for tile in zip(*(part.tolist() for part in tiles_of(ends, 300)), strict=True) if tile[1] < tile[2]]
    assert tiles == [(1, 0, 64), (3, 64, 65), (4, 65, 129), (4, 129, 193), (4, 193, 257), (4, 257, 300)]


def test_a_cpu_takes_the_loop_and_says_why_not_the_others() -> None:
    experts, x = random_experts(), torch.randn(20, 16)
    index, gates = random_choice(20, 5, 2)
    expert_ffn(x, experts, index, gates)
    assert EXPERT_FFN.last == "loop"
    reasons = dict(EXPERT_FFN.explain(x, experts, index, gates))
    assert reasons["loop"] is None and all(reasons[name] for name in EXPERT_FFN.names() if name != "loop")


def test_torch_s_grouped_product_says_what_it_cannot_align() -> None:
    experts, x = random_experts(hidden=6), torch.randn(20, 16)
    index, gates = random_choice(20, 5, 2)
    with pytest.raises(ConfigError, match=r"a side of 6 in torch\.float32: needs multiples of 4; use backend='auto'"):
        expert_ffn(x, experts, index, gates, backend="grouped")
    wide = random_experts(dtype=torch.float64)
    with pytest.raises(ConfigError, match=r"float64: has float32"):
        expert_ffn(x.double(), wide, index, gates, backend="grouped")


GOOD = {"up_EDH": torch.ones(5, 16, 8), "down_EHO": torch.ones(5, 8, 16)}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"activation": "gelo"}, r"no activation 'gelo'; did you mean 'gelu'\?"),
        ({"up_EDH": torch.ones(8, 16)}, r"shape \(experts, in, out\), not \(8, 16\)"),
        ({"down_EHO": torch.ones(5, 9, 16)}, r"down_EHO must have shape \(5, 8, 16\)"),
        ({"down_EHO": torch.ones(4, 8, 16)}, r"down_EHO must have shape \(5, 8, 16\)"),
        ({"gate_EDH": torch.ones(5, 15, 8)}, r"gate_EDH must have shape \(5, 16, 8\)"),
        ({"up_bias_EH": torch.ones(8)}, r"up_bias_EH must have shape \(5, 8\)"),
        ({"gate_bias_EH": torch.ones(5, 8)}, r"a bias of the gate but no gate"),
        ({"down_EHO": torch.ones(5, 8, 16).half()}, r"one floating-point type, not torch.float32 and torch.float16"),
        ({"up_EDH": torch.ones(5, 16, 8, device="meta")}, r"tokens are on cpu and up_EDH on meta"),
        ({"up_EDH": torch.ones(5, 12, 8)}, r"experts for 12 features cannot take tokens of shape \(20, 16\)"),
    ],
)
def test_weights_that_do_not_fit_are_one_error(changed: dict, message: str) -> None:
    experts = Experts(**({"activation": "gelu"} | GOOD | changed))
    with pytest.raises((ConfigError, UnknownNameError), match=message):
        expert_ffn(torch.ones(20, 16), experts, torch.zeros(20, 2).long(), torch.ones(20, 2))


@pytest.mark.parametrize(
    ("index", "gates", "message"),
    [
        (torch.zeros(20, 2).long(), torch.ones(20, 1), r"must be of shape \(20, 'K'\), not \(20, 2\) and \(20, 1\)"),
        (torch.zeros(19, 2).long(), torch.ones(19, 2), r"must be of shape \(20, 'K'\)"),
        (torch.zeros(20).long(), torch.ones(20), r"must be of shape \(20, 'K'\)"),
        (torch.zeros(20, 2), torch.ones(20, 2), r"must be int64 or int32 and gates floating-point"),
        (torch.full((20, 2), 5), torch.ones(20, 2), r"chosen experts must be 0 to 4, not 5 to 5"),
        (torch.full((20, 2), -1), torch.ones(20, 2), r"chosen experts must be 0 to 4, not -1 to -1"),
        (torch.zeros(20, 2).long(), torch.ones(20, 2, device="meta"), r"gates on meta; move them to one device"),
    ],
)
def test_choices_that_do_not_fit_are_one_error(index: Tensor, gates: Tensor, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        expert_ffn(torch.ones(20, 16), Experts(activation="gelu", **GOOD), index, gates)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("name", FAST)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_on_a_gpu_it_equals_the_reference(name: str, dtype: torch.dtype) -> None:
    tolerance = {torch.float32: 1e-5, torch.float16: 6e-3, torch.bfloat16: 4e-2}[dtype]
    if name == "triton" and pytest.importorskip("outpace.kernels.moe.triton").INTERPRETED:
        pytest.skip("needs TRITON_INTERPRET=0")
    torch.manual_seed(0)
    with torch.device("cuda"):
        for width, hidden, tokens in [(64, 32, 70), (384, 96, 300), (1152, 288, 1000)]:
            experts = random_experts(count=12, width=width, hidden=hidden, out=width, gated=True, dtype=dtype)
            x, choice = torch.randn(tokens, width).to(dtype).requires_grad_(), random_choice(tokens, 12, 2)
            truth = output_and_gradients(x, experts, choice, "reference")
            found = output_and_gradients(x, experts, choice, name)
            assert difference(found, truth) < tolerance, (width, hidden, tokens)
