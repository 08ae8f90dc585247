"""The Triton kernels equal the float64 reference under Triton's interpreter, and compile for GPUs that are not here.

`tests/conftest.py` switches the interpreter on. On a machine with a GPU, `TRITON_INTERPRET=0 pytest -m gpu` runs the
tests that need one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from outpace.errors import ConfigError
from outpace.kernels.attention import MASS, SPARSE, BlockIndex, block_mass, dense_attention, sparse_attention
from outpace.kernels.attention.launch import AMD, Card, full_ends, longest_first, plan, refuses_plan
from outpace.kernels.attention.reference import reference_dense, reference_mass, reference_sparse
from outpace.kernels.dispatch import Operation

kernels = pytest.importorskip("outpace.kernels.attention.triton", exc_type=ImportError)
interpreted = pytest.mark.skipif(not kernels.INTERPRETED, reason="TRITON_INTERPRET is off")

TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3}
quick = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """Memory that is allocated and not written reads NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def random_index(
    *, seed: int, batch: int, groups: int, queries: int, keys: int, blocks: tuple[int, int], lengths: list[int] | None
) -> BlockIndex:
    """Ragged rows of random density, some of them empty and some full."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = -(-queries // blocks[0]), -(-keys // blocks[1])
    density = torch.randint(0, 5, (batch, groups, rows, 1), generator=generator) / 4
    mask = torch.rand(batch, groups, rows, columns, generator=generator) < density
    return BlockIndex.from_mask(
        mask,
        queries=queries,
        keys=keys,
        query_block=blocks[0],
        key_block=blocks[1],
        key_lengths=None if lengths is None else torch.tensor(lengths),
    )


def random_inputs(
    index: BlockIndex, *, heads: int, key_heads: int, width: int, dtype: torch.dtype, layout: str
) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v as `layout` has them in memory: "BHND", "BNHD" (diffusers) or "BHDN"."""
    torch.manual_seed(index.indices.numel())

    def one(count: int, tokens: int) -> Tensor:
        x = torch.randn(index.batch, count, tokens, width).to(dtype)
        if layout == "BHND":
            return x
        return x.transpose(1, 2).contiguous().transpose(1, 2) if layout == "BNHD" else x.mT.contiguous().mT

    return one(heads, index.queries), one(key_heads, index.keys), one(key_heads, index.keys)


def difference(found: Tensor, truth: Tensor) -> float:
    """Largest absolute difference; infinite where one is finite and the other is not."""
    same = found.double() == truth
    return float(torch.where(same, 0.0, (found.double() - truth).abs()).nan_to_num(nan=math.inf).max())


@st.composite
def problems(draw: st.DrawFn) -> dict:
    """Sizes of a small problem: at most some dozen tiles of work for the interpreter."""
    blocks = draw(st.sampled_from(kernels.BLOCKS))
    queries = draw(st.integers(1, min(3 * blocks[0], blocks[0] + 40)))
    keys = draw(st.integers(1, min(4 * blocks[1], blocks[1] + 40)))
    batch, key_heads = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    heads = key_heads * draw(st.integers(1, 2))
    return {
        "index": random_index(
            seed=draw(st.integers(0, 99)),
            batch=batch,
            groups=draw(st.sampled_from([1, key_heads, heads])),
            queries=queries,
            keys=keys,
            blocks=blocks,
            lengths=draw(st.none() | st.lists(st.integers(0, keys), min_size=batch, max_size=batch)),
        ),
        "heads": heads,
        "key_heads": key_heads,
        "width": draw(st.sampled_from([32, 64, 96, 128])),
        "dtype": draw(st.sampled_from([torch.float32, torch.float16] if blocks[0] > 16 else [torch.float16])),
        "layout": draw(st.sampled_from(["BHND", "BNHD", "BHDN"])),
    }


@interpreted
@quick
@given(problem=problems(), scale=st.sampled_from([None, 0.3, 0.0, -0.2]))
def test_sparse_equals_the_reference(problem: dict, scale: float | None) -> None:
    index = problem["index"]
    q, k, v = random_inputs(**problem)
    truth, truth_lse = reference_sparse(q, k, v, index, scale=scale)
    for b, length in enumerate(index.valid_keys().tolist()):  # padding must not even be read
        k[b, :, length:] = v[b, :, length:] = torch.nan
    out, lse = sparse_attention(q, k, v, index, scale=scale, return_lse=True, backend="triton")
    assert out.dtype == q.dtype and lse.dtype == torch.float32
    assert difference(out, truth) < TOLERANCE[q.dtype]
    assert difference(lse, truth_lse) < TOLERANCE[q.dtype]


@interpreted
@quick
@given(problem=problems(), stale=st.booleans())
def test_mass_equals_the_reference(problem: dict, stale: bool) -> None:
    index = problem["index"]
    q, k, v = random_inputs(**problem)
    lse = reference_dense(q, k, v, key_lengths=index.key_lengths)[1].float()
    if stale:
        lse = lse + torch.randn_like(lse) / 4
    lse = lse.mT.contiguous().mT  # strides of its own
    blocks = {"query_block": index.query_block, "key_block": index.key_block, "key_lengths": index.key_lengths}
    truth = reference_mass(q, k, lse, **blocks)
    for b, length in enumerate(index.valid_keys().tolist()):
        k[b, :, length:] = torch.nan
    mass = block_mass(q, k, lse, **blocks, backend="triton")
    assert mass.dtype == torch.float32
    assert difference(mass, truth) < TOLERANCE[q.dtype] * index.query_block


@interpreted
def test_mass_rows_sum_to_their_queries() -> None:
    index = BlockIndex.full(1, 2, queries=150, keys=150, query_block=64, key_block=64)
    q, k, v = random_inputs(index, heads=2, key_heads=2, width=64, dtype=torch.float32, layout="BHND")
    _, lse = dense_attention(q, k, v, return_lse=True)
    lse[:, :, 70:72] = -torch.inf
    mass = block_mass(q, k, lse, query_block=64, key_block=64, backend="triton")
    assert torch.allclose(mass.sum(-1), torch.tensor([64.0, 62.0, 22.0]), atol=1e-4)


@interpreted
def test_recall_is_the_difference_of_the_logarithms() -> None:
    index = random_index(seed=3, batch=1, groups=2, queries=128, keys=192, blocks=(32, 32), lengths=None)
    q, k, v = random_inputs(index, heads=2, key_heads=2, width=32, dtype=torch.float32, layout="BHND")
    _, kept = sparse_attention(q, k, v, index, return_lse=True, backend="triton")
    _, all_of_it = reference_dense(q, k, v)
    scores = q.double() @ k.double().mT / math.sqrt(32)
    recall = torch.where(index.dense_mask(), scores.softmax(-1), 0.0).sum(-1)
    assert difference((kept - all_of_it).exp(), recall) < 1e-6


@interpreted
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_a_program_may_take_parts_of_a_block(dtype: torch.dtype) -> None:
    """Of its keys, tile by tile; of its queries too, several programs a block, the more in float32."""
    launch = plan(Card.of(torch.device("cpu")), 128, 128, 64, dtype.itemsize, tensors=2)
    assert launch is not None and launch.tile < 128 and launch.rows == (32 if dtype == torch.float32 else 64)
    index = random_index(seed=5, batch=2, groups=1, queries=170, keys=300, blocks=(128, 128), lengths=[300, 150])
    q, k, v = random_inputs(index, heads=1, key_heads=1, width=64, dtype=dtype, layout="BHND")
    out, lse = sparse_attention(q, k, v, index, return_lse=True, backend="triton")
    truth, truth_lse = reference_sparse(q, k, v, index)
    assert difference(out, truth) < TOLERANCE[dtype] and difference(lse, truth_lse) < TOLERANCE[dtype]
    blocks = {"query_block": 128, "key_block": 128, "key_lengths": index.key_lengths}
    dense_lse = reference_dense(q, k, v, key_lengths=index.key_lengths)[1].float()
    found = block_mass(q, k, dense_lse, **blocks, backend="triton")
    assert difference(found, reference_mass(q, k, dense_lse, **blocks)) < 128 * TOLERANCE[dtype]


@interpreted
def test_a_kernel_too_large_for_the_card_gives_way_to_the_next_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the compiler finds at a launch is told once, and inputs of that kind then pass the kernel by."""
    from triton.runtime.errors import OutOfResources

    launches = []

    class TooLarge:
        def __getitem__(self, grid: object) -> Callable[..., None]:
            def launch(*_: object, **__: object) -> None:
                launches.append(grid)
                raise OutOfResources(300_000, 232_448, "shared memory")

            return launch

    monkeypatch.setattr(kernels, "_sparse_kernel", TooLarge())
    monkeypatch.setattr(kernels, "_mass_kernel", TooLarge())
    index = random_index(seed=3, batch=1, groups=1, queries=64, keys=96, blocks=(32, 32), lengths=None)
    q, k, v = random_inputs(index, heads=1, key_heads=1, width=32, dtype=torch.float32, layout="BHND")
    with pytest.raises(ConfigError, match="needs 300000 of shared memory, which has 232448; use backend='auto'"):
        sparse_attention(q, k, v, index, backend="triton")
    triton_first = [b if b.name != "triton" else replace(b, hesitates=lambda *_: None) for b in SPARSE.backends]
    fresh = Operation(name="sparse attention", backends=triton_first)
    monkeypatch.setattr("outpace.kernels.attention.sparse.SPARSE", fresh)
    launches.clear()
    for _ in range(2):
        out, _ = sparse_attention(q, k, v, index, return_lse=True)
        assert difference(out, reference_sparse(q, k, v, index)[0]) < 1e-5
    assert len(launches) == 1 and fresh.last == "torch"
    reasons = dict(fresh.explain(q, k, v, index, True))
    assert reasons["triton"] == "compiled for this card it needs 300000 of shared memory, which has 232448"
    wider = (x.repeat(1, 1, 1, 2) for x in (q, k, v))
    assert dict(fresh.explain(*wider, index, True))["triton"] is None


@interpreted
def test_rows_of_text_queries_go_to_dense_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = torch.rand(2, 2, 5, 4) < 0.4
    mask[:, :, 0] = mask[:, :, 3:] = True
    mask[0, 1, 1], mask[0, 0, 1, 0] = True, False  # full for one head only
    sizes = {"queries": 140, "keys": 120, "query_block": 32, "key_block": 32}
    index = BlockIndex.from_mask(mask, **sizes, key_lengths=torch.tensor([120, 70]))
    assert full_ends(index) == (1, 2)
    q, k, v = random_inputs(index, heads=2, key_heads=2, width=32, dtype=torch.float32, layout="BNHD")
    seen = []
    monkeypatch.setattr(
        kernels,
        "dense_attention",
        lambda q, *rest, **options: seen.append(q.shape[2]) or dense_attention(q, *rest, **options),
    )
    out, lse = sparse_attention(q, k, v, index, return_lse=True, backend="triton")
    truth, truth_lse = reference_sparse(q, k, v, index)
    assert seen == [32, 140 - 96]
    assert difference(out, truth) < 1e-5 and difference(lse, truth_lse) < 1e-5
    alone, alone_lse = kernels.sparse(q, k, v, index, scale=32**-0.5, return_lse=True, dense_ends=False)
    assert len(seen) == 2
    assert difference(alone, truth) < 1e-5 and difference(alone_lse, truth_lse) < 1e-5


@interpreted
@pytest.mark.parametrize("scale", [3.0, -3.0])
def test_scores_far_apart_do_not_overflow(scale: float) -> None:
    index = random_index(seed=6, batch=1, groups=1, queries=64, keys=200, blocks=(32, 32), lengths=None)
    q, k, v = random_inputs(index, heads=1, key_heads=1, width=128, dtype=torch.float32, layout="BHND")
    out, lse = sparse_attention(q, k, v, index, scale=scale, return_lse=True, backend="triton")
    truth, truth_lse = reference_sparse(q, k, v, index, scale=scale)
    assert difference(out, truth) < 1e-3 and difference(lse, truth_lse) < 1e-3


@interpreted
def test_a_full_index_asked_for_by_name_runs_in_the_kernel() -> None:
    index = BlockIndex.full(1, 1, queries=40, keys=40, query_block=32, key_block=32)
    assert full_ends(index) == (0, 0)
    q, k, v = random_inputs(index, heads=1, key_heads=1, width=32, dtype=torch.float32, layout="BHND")
    out = sparse_attention(q, k, v, index, backend="triton")
    assert isinstance(out, Tensor) and difference(out, reference_dense(q, k, v)[0]) < 1e-5


@interpreted
@pytest.mark.parametrize("which", ["q", "k"])
def test_tensors_may_span_more_than_32_bits(which: str) -> None:
    torch.use_deterministic_algorithms(False)  # what is not written is not to be touched: it is 4 gigabytes
    index = random_index(seed=4, batch=1, groups=2, queries=40, keys=40, blocks=(32, 32), lengths=None)
    q, k, v = random_inputs(index, heads=2, key_heads=2, width=32, dtype=torch.float16, layout="BHND")
    far = torch.empty(2**31 + 40 * 32 + 100, dtype=torch.float16)
    wide = far.as_strided(q.shape, (0, 2**31 + 100, 32, 1)).copy_(q if which == "q" else k)
    q, k = (wide, k) if which == "q" else (q, wide)
    out, lse = sparse_attention(q, k, v, index, return_lse=True, backend="triton")
    truth, truth_lse = reference_sparse(q, k, v, index)
    assert difference(out, truth) < 4e-3 and difference(lse, truth_lse) < 4e-3
    mass = block_mass(q, k, lse, query_block=32, key_block=32, backend="triton")
    assert difference(mass, reference_mass(q, k, lse, query_block=32, key_block=32)) < 0.1


@interpreted
def test_results_repeat_bit_for_bit() -> None:
    index = random_index(seed=8, batch=1, groups=1, queries=64, keys=200, blocks=(32, 32), lengths=[170])
    q, k, v = random_inputs(index, heads=2, key_heads=1, width=32, dtype=torch.float16, layout="BHND")
    first, second = (sparse_attention(q, k, v, index, return_lse=True, backend="triton") for _ in range(2))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


def test_work_is_every_row_once_and_the_longest_first() -> None:
    index = random_index(seed=1, batch=2, groups=3, queries=640, keys=900, blocks=(16, 16), lengths=[900, 500])
    items = longest_first(index, 2, 1)
    rows = torch.arange(2 * 3 * 40).view(2, 3, 40)[..., 2:39].flatten()
    assert items.dtype == torch.int32 and torch.equal(items.long().sort().values, rows)
    counts = index.counts.flatten()[items.long()]
    longest_yet_to_come = counts.flip(0).cummax(0).values.flip(0)
    assert bool((longest_yet_to_come <= counts.clamp(min=1) * math.sqrt(2)).all())


CARDS = {
    "A100": Card(capability=80, shared_bytes=163 << 10),
    "RTX 4090": Card(capability=89, shared_bytes=99 << 10),
    "H100": Card(capability=90, shared_bytes=227 << 10),
    "B200": Card(capability=100, shared_bytes=227 << 10),
    "MI300": Card(capability=AMD, shared_bytes=64 << 10),
    "T4": Card(capability=75, shared_bytes=64 << 10),
    "tiny": Card(capability=90, shared_bytes=24 << 10),
}


@pytest.mark.parametrize("name", CARDS)
def test_a_launch_fits_its_card_or_is_refused_with_the_reason(name: str) -> None:
    card, planned = CARDS[name], 0
    for blocks in kernels.BLOCKS:
        for width in (32, 64, 128):
            for item_bytes in (2, 4):
                for tensors in (1, 2):
                    launch = plan(card, *blocks, width, item_bytes, tensors=tensors)
                    reason = refuses_plan(card, *blocks, width, item_bytes, tensors=tensors)
                    if launch is None:
                        assert reason is not None and (f"the {card.shared_bytes >> 10} KiB" in reason or "16" in reason)
                        continue
                    planned += 1
                    assert launch.shared_bytes(card, width, item_bytes, tensors) <= card.shared_bytes
                    assert blocks[0] % launch.rows == 0 and blocks[1] % launch.tile == 0
                    assert width % launch.piece == 0 and 1 <= launch.stages <= 3
                    assert launch.rows >= 16 * launch.warps, "warps would share rows"
    assert planned == len(kernels.BLOCKS) * 12 or name in ("MI300", "T4", "tiny")


def asked(**change: object) -> dict:
    index = random_index(seed=0, batch=1, groups=1, queries=64, keys=64, blocks=(32, 32), lengths=None)
    return {"width": 32, "dtype": torch.float32, "index": index, "gradient": False, **change}


def blocks_of(*blocks: int) -> BlockIndex:
    return random_index(seed=0, batch=1, groups=1, queries=64, keys=64, blocks=(blocks[0], blocks[1]), lengths=None)


@interpreted
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"width": 80}, "head width 80: has 32, 64, 96, 128"),
        ({"dtype": torch.float64}, "float64: has float32, float16, bfloat16"),
        ({"dtype": torch.bfloat16}, "bfloat16 under Triton's interpreter, which multiplies it wrongly"),
        ({"index": blocks_of(24, 32)}, "blocks of 24 x 32: has 16 x 16, 32 x 32, 64 x 64, 128 x 64, 128 x 128"),
        ({"index": blocks_of(64, 128)}, "blocks of 64 x 128: has 16 x 16"),
        ({"gradient": True}, "it has no gradients; call it under torch.no_grad"),
    ],
    ids=["width", "float64", "bfloat16", "query block", "key block", "gradient"],
)
def test_what_it_cannot_take_is_refused_with_the_reason(change: dict, reason: str) -> None:
    case = asked(**change)
    q, k, v = (torch.randn(1, 1, 64, case["width"], dtype=case["dtype"]) for _ in range(3))
    q.requires_grad_(case["gradient"])
    index = case["index"]
    with pytest.raises(ConfigError, match=reason):
        sparse_attention(q, k, v, index, backend="triton")
    with pytest.raises(ConfigError, match=reason):
        blocks = {"query_block": index.query_block, "key_block": index.key_block}
        block_mass(q, k, torch.zeros(1, 1, 64), **blocks, backend="triton")
    if case["gradient"]:
        with torch.no_grad():
            sparse_attention(q, k, v, index, backend="triton")


def test_on_a_cpu_it_runs_for_tests_only(monkeypatch: pytest.MonkeyPatch) -> None:
    index = random_index(seed=0, batch=1, groups=1, queries=64, keys=64, blocks=(32, 32), lengths=None)
    q = torch.randn(1, 1, 64, 32)
    assert SPARSE.choose(q, q, q, index, True).name != "triton"
    assert MASS.choose(q, q, q[..., 0], 32, 32).name != "triton"
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(ConfigError, match="it runs on CUDA devices, not on cpu"):
        sparse_attention(q, q, q, index, backend="triton")


def test_an_interpreter_switched_on_too_late_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "INTERPRETED", False)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    index = random_index(seed=0, batch=1, groups=1, queries=64, keys=64, blocks=(32, 32), lengths=None)
    q = torch.randn(1, 1, 64, 32)
    with pytest.raises(ConfigError, match="TRITON_INTERPRET was set after"):
        sparse_attention(q, q, q, index, backend="triton")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available() or kernels.INTERPRETED, reason="needs CUDA and TRITON_INTERPRET=0")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_on_a_gpu_it_equals_the_reference(dtype: torch.dtype) -> None:
    tolerance = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}[dtype]
    sizes = {"batch": 2, "groups": 4, "queries": 700, "keys": 900, "lengths": [900, 611]}
    for blocks in kernels.BLOCKS:
        index = random_index(seed=2, blocks=blocks, **sizes)
        for width in (32, 64, 96, 128):
            q, k, v = random_inputs(index, heads=4, key_heads=2, width=width, dtype=dtype, layout="BNHD")
            truth, truth_lse = reference_sparse(q, k, v, index)
            lse = reference_dense(q, k, v, key_lengths=index.key_lengths)[1].float()
            options = {"query_block": blocks[0], "key_block": blocks[1]}
            truth_mass = reference_mass(q, k, lse, key_lengths=index.key_lengths, **options)
            q, k, v, on_gpu = q.cuda(), k.cuda(), v.cuda(), index.to("cuda")
            out, found_lse = sparse_attention(q, k, v, on_gpu, return_lse=True, backend="triton")
            assert difference(out.cpu(), truth) < tolerance, (blocks, width)
            assert difference(found_lse.cpu(), truth_lse) < tolerance, (blocks, width)
            mass = block_mass(q, k, lse.cuda(), key_lengths=on_gpu.key_lengths, **options, backend="triton")
            assert difference(mass.cpu(), truth_mass) < tolerance * blocks[0], (blocks, width)
