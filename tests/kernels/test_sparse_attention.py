"""Block-sparse attention equals a dense masked softmax in float64, whatever the index, the layout and the backend."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from unittest.mock import patch

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import outpace.kernels.attention.torch as on_torch
from outpace.errors import ConfigError
from outpace.kernels.attention import DENSE, SPARSE, BlockIndex, dense_attention, sparse_attention
from outpace.kernels.attention.reference import reference_dense, reference_sparse

torch.set_num_threads(1)
quick = settings(
    max_examples=120,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}
SAMPLE = torch.zeros(1, 1, 64, 32)
# Those that need no compiler and no interpreter; the others have test files of their own.
BACKENDS = [
    backend.name
    for backend in SPARSE.backends
    if backend.name == "reference"
    or backend.objection(
        SAMPLE, SAMPLE, SAMPLE, BlockIndex.full(1, 1, queries=64, keys=64, query_block=64, key_block=64), True
    )
    is None
]


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """Memory that is allocated and not written reads NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def random_index(
    seed: int, batch: int, groups: int, tokens: tuple[int, int], blocks: tuple[int, int], lengths: list[int] | None
) -> BlockIndex:
    """Rows of random density, some empty, some full, some of neighbouring blocks only."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = -(-tokens[0] // blocks[0]), -(-tokens[1] // blocks[1])
    density = torch.randint(0, 5, (batch, groups, rows, 1), generator=generator) / 4
    mask = torch.rand(batch, groups, rows, columns, generator=generator) < density
    first, last = torch.randint(0, columns + 1, (2, batch, groups, rows, 1), generator=generator)
    stretch = (torch.arange(columns) >= first) & (torch.arange(columns) < last)
    mask = torch.where(torch.rand(batch, groups, rows, 1, generator=generator) < 0.3, stretch, mask)
    return BlockIndex.from_mask(
        mask,
        queries=tokens[0],
        keys=tokens[1],
        query_block=blocks[0],
        key_block=blocks[1],
        key_lengths=None if lengths is None else torch.tensor(lengths),
    ).validate()


def laid_out(x: Tensor, layout: str) -> Tensor:
    """(B, H, N, D) with the strides of `layout`."""
    if layout == "BHND":
        return x
    return x.transpose(1, 2).contiguous().transpose(1, 2) if layout == "BNHD" else x.mT.contiguous().mT


def difference(found: Tensor, truth: Tensor) -> float:
    """Largest absolute difference; infinite where one is finite and the other is not."""
    gap = torch.where(found.double() == truth, 0.0, (found.double() - truth).abs())
    return float(gap.nan_to_num(nan=math.inf).max())


@st.composite
def problems(draw: st.DrawFn) -> tuple[BlockIndex, Tensor, Tensor, Tensor]:
    """An index with q, k and v for it."""
    blocks = draw(st.sampled_from([(16, 16), (32, 16), (8, 24), (64, 64), (128, 64), (5, 7), (1, 1)]))
    tokens = draw(st.integers(1, 5 * blocks[0])), draw(st.integers(1, 6 * blocks[1]))
    batch, key_heads = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    heads = key_heads * draw(st.integers(1, 3))
    groups = draw(st.sampled_from([1, key_heads, heads]))
    lengths = draw(st.none() | st.lists(st.integers(0, tokens[1]), min_size=batch, max_size=batch))
    index = random_index(draw(st.integers(0, 999)), batch, groups, tokens, blocks, lengths)
    width = draw(st.sampled_from([1, 8, 32, 40, 64, 128]))
    dtype, layout = draw(st.sampled_from(list(TOLERANCE))), draw(st.sampled_from(["BHND", "BNHD", "BHDN"]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    shapes = ((heads, tokens[0]), (key_heads, tokens[1]), (key_heads, tokens[1]))
    made = [torch.randn(batch, *shape, width, generator=generator).to(dtype) for shape in shapes]
    q, k, v = (laid_out(x, layout) for x in made)
    return index, q, k, v


@pytest.mark.parametrize("backend", BACKENDS)
@quick
@given(
    problem=problems(),
    scale=st.sampled_from([None, 0.3, 0.0, -0.2]),
    cache_bytes=st.sampled_from([1 << 20, 20_000, 1]),
    in_place_bytes=st.sampled_from([0, 4096, 1 << 30]),
)
def test_equals_the_reference(
    backend: str,
    problem: tuple[BlockIndex, Tensor, Tensor, Tensor],
    scale: float | None,
    cache_bytes: int,
    in_place_bytes: int,
) -> None:
    index, q, k, v = problem
    truth, truth_lse = reference_sparse(q, k, v, index, scale=scale)
    if backend != "reference":
        for b, length in enumerate(index.valid_keys().tolist()):  # padding must have no influence at all
            k[b, :, length:] = v[b, :, length:] = torch.nan
    small = patch.multiple(on_torch, CACHE_BYTES=cache_bytes, IN_PLACE_BYTES=in_place_bytes)
    with small:
        out, lse = sparse_attention(q, k, v, index, scale=scale, return_lse=True, backend=backend)
    assert out.dtype == q.dtype and out.shape == q.shape and lse.dtype == torch.float32
    assert difference(out, truth) <= TOLERANCE[q.dtype]
    assert difference(lse, truth_lse) <= 1e-5
    alone = sparse_attention(q, k, v, index, scale=scale, backend=backend)
    assert difference(alone, truth) <= TOLERANCE[q.dtype]


@pytest.mark.parametrize("size", [10.0, 40.0, 200.0])
@pytest.mark.parametrize("shared", [1, 2])
def test_scores_beyond_what_exp_can_hold(size: float, shared: int) -> None:
    """exp(88) is the largest float32: shifted from 60 on, and rows that a shift would empty are repeated."""
    index = random_index(3, 2, 2, (150, 310), (32, 32), None)
    generator = torch.Generator().manual_seed(0)
    q = size * torch.randn(2, 2 * shared, 150, 32, generator=generator)
    k, v = (torch.randn(2, 2, 310, 32, generator=generator) for _ in range(2))
    q[:, :, ::5] *= -1e-3  # beside others whose scores are small
    q[:, :, 1::5], k[:, :, :, 0] = -size, k[:, :, :, 0].abs() + 5  # and some whose scores are all far below 0
    truth, truth_lse = reference_sparse(q, k, v, index)
    largest = float((q.double() @ k.double().repeat_interleave(shared, 1).mT).abs().max()) / math.sqrt(32)
    assert largest > 88 or size < 40
    out, lse = sparse_attention(q, k, v, index, return_lse=True)
    assert difference(lse, truth_lse) <= 1e-5 + 1e-6 * largest
    assert difference(out, truth) <= 1e-5 + 4e-6 * largest  # what rounding the scores to float32 leaves


@pytest.mark.parametrize("lengths", [None, [256, 256], [256, 100]])
@pytest.mark.parametrize("return_lse", [False, True])
def test_an_index_of_everything_is_the_dense_path_bit_for_bit(lengths: list[int] | None, return_lse: bool) -> None:
    q, k, v = torch.randn(3, 2, 4, 256, 32)
    key_lengths = None if lengths is None else torch.tensor(lengths)
    index = BlockIndex.full(2, 4, queries=256, keys=256, query_block=64, key_block=64, key_lengths=key_lengths)
    assert index.is_full and torch.all(index.density == 1)
    sparse = sparse_attention(q, k, v, index, return_lse=return_lse)
    dense = dense_attention(q, k, v, key_lengths=key_lengths, return_lse=return_lse)
    for a, b in zip(*((x if return_lse else [x]) for x in (sparse, dense)), strict=True):
        assert torch.equal(a, b)


@quick
@given(seed=st.integers(0, 999))
def test_recall_is_the_difference_of_lse_and_what_was_dropped_explains_the_error(seed: int) -> None:
    """exp(LSE_S - LSE) is the kept mass r, and o = r o_S + (1 - r) o_dropped."""
    index = random_index(seed, 1, 2, (70, 130), (16, 16), None)
    mask = index.mask()
    rest = BlockIndex.from_mask(~mask, queries=70, keys=130, query_block=16, key_block=16)
    q, k, v = torch.randn(3, 1, 2, 130, 16, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    q = q[:, :, :70]
    kept, kept_lse = sparse_attention(q, k, v, index, return_lse=True)
    dropped, _ = sparse_attention(q, k, v, rest, return_lse=True)
    whole, lse = reference_dense(q, k, v)
    weights = ((q @ k.mT) / 4).softmax(-1)
    recall = (weights * index.dense_mask()).sum(-1)
    assert ((kept_lse - lse).exp() - recall).abs().max() <= 1e-6
    recall = recall[..., None]
    assert (whole - (recall * kept + (1 - recall) * dropped)).abs().max() <= 1e-10
    bound = 2 * (1 - recall) * v.norm(dim=-1).max()
    empty = ~mask.any(-1).repeat_interleave(16, 2)[:, :, :70, None]
    assert ((kept - whole).norm(dim=-1, keepdim=True) <= bound + 1e-10)[~empty].all()


def test_nothing_kept_gives_nothing() -> None:
    mask = torch.zeros(1, 1, 2, 3, dtype=torch.bool)
    index = BlockIndex.from_mask(mask, queries=100, keys=150, query_block=64, key_block=64)
    out, lse = sparse_attention(torch.randn(1, 2, 100, 8), *torch.randn(2, 1, 2, 150, 8), index, return_lse=True)
    assert torch.all(out == 0) and torch.all(lse == -torch.inf)


def test_buffers_serve_calls_of_other_sizes_modes_and_threads() -> None:
    """They outlive a call: one made in inference mode must serve outside of it, and threads must not share them."""
    cases = []
    for seed, tokens in enumerate(((200, 200), (100, 260), (200, 200))):
        index = random_index(seed, 1, 2, tokens, (32, 32), None)
        generator = torch.Generator().manual_seed(seed)
        q, k, v = (torch.randn(1, 2, n, 16, generator=generator) for n in (tokens[0], tokens[1], tokens[1]))
        cases.append((index, q, k, v, reference_sparse(q, k, v, index)[0]))
    failures = []

    def run() -> None:
        for turn in range(30):
            index, q, k, v, truth = cases[turn % 3]
            with torch.inference_mode(turn % 2 == 0):
                if difference(sparse_attention(q, k, v, index, backend="torch"), truth) > 1e-5:
                    failures.append(turn)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    run()
    for thread in threads:
        thread.join()
    assert not failures


def test_the_backend_that_ran_is_recorded() -> None:
    index = random_index(0, 1, 1, (64, 64), (16, 16), None)
    q, k, v = torch.randn(3, 1, 1, 64, 24, dtype=torch.float64)
    sparse_attention(q, k, v, index)
    assert SPARSE.last == "torch" and SPARSE.chosen["cpu", "float64", 24] == "torch"
    dense_attention(q, k, v, return_lse=True)
    assert DENSE.chosen["cpu", "float64", 24] == "aten-cpu"


def test_a_gradient_is_refused_and_not_dropped_in_silence() -> None:
    index = random_index(0, 1, 1, (64, 64), (16, 16), None)
    q, k, v = torch.randn(3, 1, 1, 64, 16)
    q.requires_grad_()
    with pytest.raises(ConfigError, match="no_grad"):
        sparse_attention(q, k, v, index)
    with torch.no_grad():
        assert sparse_attention(q, k, v, index).shape == q.shape


ELSEWHERE = BlockIndex(
    indptr=torch.zeros(1, 2, 5, dtype=torch.int32, device="meta"),
    indices=torch.zeros(32, dtype=torch.int32, device="meta"),
    queries=64,
    keys=64,
    query_block=16,
    key_block=16,
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": torch.zeros(2, 64, 16)}, "batch, heads, tokens, width"),
        ({"q": torch.zeros(1, 2, 64, 16, device="meta")}, "move them to one device"),
        ({"q": torch.zeros(1, 2, 64, 8)}, "same width"),
        ({"q": torch.zeros(1, 3, 64, 16)}, "cannot share 2 key heads"),
        ({"q": torch.zeros(1, 2, 64, 16).half()}, "one floating-point type"),
        ({"q": torch.zeros(1, 2, 65, 16)}, "64 queries and 64 keys, not 65 and 64"),
        ({"v": torch.zeros(1, 2, 64, 8)}, "values must be like keys"),
        ({"index": BlockIndex.full(2, 2, queries=64, keys=64, query_block=16, key_block=16)}, "2 batch rows"),
        ({"index": BlockIndex.full(1, 4, queries=64, keys=64, query_block=16, key_block=16)}, "4 head groups"),
        ({"index": ELSEWHERE}, "index.to('cpu')"),
    ],
)
def test_wrong_inputs_are_one_clear_error(change: dict[str, object], message: str) -> None:
    inputs: dict[str, object] = {name: torch.zeros(1, 2, 64, 16) for name in "qkv"}
    inputs["index"] = BlockIndex.full(1, 2, queries=64, keys=64, query_block=16, key_block=16)
    with pytest.raises(ConfigError) as caught:
        sparse_attention(**{**inputs, **change})  # type: ignore[arg-type]
    assert message in str(caught.value) and "\n" not in str(caught.value)
