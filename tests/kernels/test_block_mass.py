"""Block mass equals the block sums of a float64 softmax, and a row of blocks holds all of its queries."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import outpace.kernels.attention.torch_mass as on_torch
from outpace.errors import ConfigError, UnknownNameError
from outpace.kernels.attention import MASS, block_mass, dense_attention
from outpace.kernels.attention.reference import reference_dense, reference_mass

torch.set_num_threads(1)
quick = settings(
    max_examples=100, deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
SAMPLE = torch.zeros(1, 1, 64, 32)
BACKENDS = [
    backend.name
    for backend in MASS.backends
    if backend.name == "reference" or backend.objection(SAMPLE, SAMPLE, SAMPLE[..., 0], 64, 64) is None
]


@pytest.mark.parametrize("backend", BACKENDS)
@quick
@given(
    seed=st.integers(0, 999),
    blocks=st.sampled_from([(16, 16), (32, 8), (64, 64), (5, 7), (300, 64), (1, 1)]),
    tokens=st.tuples(st.integers(1, 330), st.integers(1, 200)),
    heads=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    batch=st.integers(1, 2),
    width=st.sampled_from([1, 8, 40, 64]),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
    padded=st.booleans(),
    stale=st.booleans(),
    tile_bytes=st.sampled_from([1 << 20, 1000]),
)
def test_equals_the_reference(
    backend: str,
    seed: int,
    blocks: tuple[int, int],
    tokens: tuple[int, int],
    heads: tuple[int, int],
    batch: int,
    width: int,
    dtype: torch.dtype,
    padded: bool,
    stale: bool,
    tile_bytes: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(batch, tokens[0], heads[0] * heads[1], width, generator=generator).to(dtype).transpose(1, 2)
    k = torch.randn(batch, tokens[1], heads[0], width, generator=generator).to(dtype).transpose(1, 2)
    lengths = torch.randint(0, tokens[1] + 1, (batch,), generator=generator) if padded else None
    exact = reference_dense(q, k, k, key_lengths=lengths)[1]
    lse = exact.float() + (torch.randn(exact.shape, generator=generator) / 4 if stale else 0.0)
    options = {"query_block": blocks[0], "key_block": blocks[1], "key_lengths": lengths}
    truth = reference_mass(q, k, lse, **options)
    if lengths is not None and backend != "reference":
        for b, length in enumerate(lengths.tolist()):
            k[b, :, length:] = torch.nan
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(on_torch, "TILE_BYTES", tile_bytes)
        mass = block_mass(q, k, lse, **options, backend=backend)
    rows, columns = -(-tokens[0] // blocks[0]), -(-tokens[1] // blocks[1])
    assert mass.dtype == torch.float32 and mass.shape == (batch, heads[0] * heads[1], rows, columns)
    assert (mass - truth).abs().max() <= 1e-5 * blocks[0]
    if not stale:
        queries = torch.tensor([min(blocks[0], tokens[0] - r * blocks[0]) for r in range(rows)]).double()
        some = (exact > -torch.inf).all(-1)[..., None].double()  # all padding: no mass at all
        assert (mass.sum(-1) - some * queries).abs().max() <= 1e-5 * blocks[0]


def test_scores_far_below_the_others_cost_and_add_nothing() -> None:
    q, k = torch.full((1, 1, 4, 4), 20.0), torch.cat([torch.ones(1, 1, 4, 4), -torch.ones(1, 1, 4, 4)], 2)
    _, lse = dense_attention(q, k, k, return_lse=True)
    mass = block_mass(q, k, lse, query_block=4, key_block=4)
    assert mass[0, 0, 0, 0] == pytest.approx(4.0, abs=1e-5) and 0 <= mass[0, 0, 0, 1] < 1e-30


def test_does_not_hold_the_attention_matrix() -> None:
    """Linear memory: nothing it allocates is near tokens x tokens."""
    tokens = 4096
    q = torch.randn(1, 1, tokens, 16)
    lse = torch.full((1, 1, tokens), math.log(tokens))
    with torch.profiler.profile(profile_memory=True) as profile:
        block_mass(q, q, lse, query_block=64, key_block=64)
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert 0 < largest <= 2 * max(on_torch.TILE_BYTES, q.nbytes * 17 // 16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query_block": 0}, "at least one token"),
        ({"key_block": -64}, "at least one token"),
        ({"lse": torch.zeros(1, 2, 63)}, "LSE must be (1, 2, 64)"),
        ({"lse": torch.zeros(1, 2, 64, device="meta")}, "on meta"),
        ({"k": torch.zeros(1, 2, 64, 16, device="meta")}, "move them to one device"),
        ({"k": torch.zeros(1, 2, 64, 8)}, "same width"),
        ({"key_lengths": torch.tensor([1, 2])}, "one a batch row"),
        ({"key_lengths": torch.tensor([1.0])}, "integers"),
    ],
)
def test_wrong_inputs_are_one_clear_error(change: dict[str, object], message: str) -> None:
    inputs: dict[str, object] = {"q": torch.zeros(1, 2, 64, 16), "k": torch.zeros(1, 2, 64, 16)}
    inputs |= {"lse": torch.zeros(1, 2, 64), "query_block": 16, "key_block": 16}
    with pytest.raises(ConfigError) as caught:
        block_mass(**{**inputs, **change})  # type: ignore[arg-type]
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_an_unknown_backend_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'torch'"):
        block_mass(SAMPLE, SAMPLE, SAMPLE[..., 0], query_block=64, key_block=64, backend="troch")
