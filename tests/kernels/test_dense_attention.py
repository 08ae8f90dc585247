"""Dense attention and its LSE equal float64, whichever backend does it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import outpace.kernels.attention.dense as module
from outpace.errors import ConfigError
from outpace.kernels.attention import DENSE, dense_attention
from outpace.kernels.attention.reference import reference_dense

torch.set_num_threads(1)
quick = settings(
    max_examples=60, deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}
SAMPLE = torch.zeros(1, 1, 64, 32)
WITH_LSE = [b.name for b in DENSE.backends if (b.missing() or b.refuses(SAMPLE, SAMPLE, SAMPLE, True)) is None]


def test_here_are_several() -> None:
    assert {"aten-cpu", "chunked", "reference"} <= set(WITH_LSE)


@pytest.mark.parametrize("backend", [*WITH_LSE, "sdpa"])
@quick
@given(
    seed=st.integers(0, 999),
    tokens=st.tuples(st.integers(1, 80), st.integers(1, 90)),
    heads=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    width=st.sampled_from([1, 8, 40, 64]),
    dtype=st.sampled_from(list(TOLERANCE)),
    lengths=st.sampled_from(["none", "same", "ragged"]),
    turned=st.booleans(),
    scale=st.sampled_from([None, 0.3]),
)
def test_equals_the_reference(
    backend: str,
    seed: int,
    tokens: tuple[int, int],
    heads: tuple[int, int],
    width: int,
    dtype: torch.dtype,
    lengths: str,
    turned: bool,
    scale: float | None,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    shapes = (tokens[0], heads[0] * heads[1]), (tokens[1], heads[0]), (tokens[1], heads[0])
    q, k, v = (torch.randn(2, *s, width, generator=generator).to(dtype).transpose(1, 2) for s in shapes)
    if turned:
        q, k, v = (x.mT.contiguous().mT for x in (q, k, v))
    key_lengths = None
    if lengths != "none":
        key_lengths = torch.randint(0, tokens[1] + 1, (2,), generator=generator)
        key_lengths[1] = key_lengths[0] if lengths == "same" else key_lengths[1]
    truth, truth_lse = reference_dense(q, k, v, scale=scale, key_lengths=key_lengths)
    options = {"scale": scale, "key_lengths": key_lengths, "backend": backend}
    if backend == "sdpa":
        out = dense_attention(q, k, v, **options)
    else:
        out, lse = dense_attention(q, k, v, **options, return_lse=True)
        assert lse.dtype == torch.float32
        assert torch.equal(lse == -torch.inf, truth_lse == -torch.inf)
        # For halves, torch's kernel takes a faster exponential.
        assert (lse - truth_lse).nan_to_num(nan=0.0).abs().max() <= (5e-5 if dtype.itemsize == 2 else 1e-5)
    assert out.dtype == q.dtype and (out - truth).abs().max() <= TOLERANCE[dtype]


def test_without_lse_it_is_what_torch_gives_bit_for_bit() -> None:
    q, k, v = torch.randn(3, 2, 4, 100, 32)
    assert torch.equal(dense_attention(q, k, v), F.scaled_dot_product_attention(q, k, v))
    assert DENSE.last == "sdpa"
    with_lse, _ = dense_attention(q, k, v, return_lse=True)
    assert torch.equal(with_lse, dense_attention(q, k, v)) and DENSE.chosen["cpu", "float32", 32] == "sdpa"


def test_where_torch_lacks_its_private_operator_the_next_backend_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = torch.randn(3, 1, 2, 50, 16)
    lacking = [
        module.Backend(name=b.name, run=b.run, missing=lambda: "gone", refuses=b.refuses) if b.name == "aten-cpu" else b
        for b in DENSE.backends
    ]
    monkeypatch.setattr(DENSE, "backends", lacking)
    out, lse = dense_attention(q, k, v, return_lse=True)
    truth, truth_lse = reference_dense(q, k, v)
    assert DENSE.last == "chunked"
    assert (out - truth).abs().max() <= 1e-5 and (lse - truth_lse).abs().max() <= 1e-5


def test_backends_of_other_devices_say_so() -> None:
    for name in ("aten-flash", "aten-cudnn", "aten-efficient"):
        with pytest.raises(ConfigError, match="CUDA devices, not on cpu"):
            dense_attention(SAMPLE, SAMPLE, SAMPLE, backend=name)
    with pytest.raises(ConfigError, match="does not give the LSE"):
        dense_attention(SAMPLE, SAMPLE, SAMPLE, return_lse=True, backend="sdpa")
