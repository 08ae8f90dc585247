"""A block index and its other forms are one and the same, and a broken one is named."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outpace.errors import ConfigError
from outpace.kernels.block_index import BlockIndex

quick = settings(
    max_examples=80, deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


@st.composite
def masks(draw: st.DrawFn, batch: int | None = None) -> tuple[torch.Tensor, dict]:
    """A mask of blocks and the sizes it is for."""
    batch = draw(st.integers(1, 3)) if batch is None else batch
    blocks, tokens = draw(st.sampled_from([(16, 16), (5, 7), (64, 32)])), draw(st.tuples(*[st.integers(1, 200)] * 2))
    sizes = {"queries": tokens[0], "keys": tokens[1], "query_block": blocks[0], "key_block": blocks[1]}
    shape = (batch, draw(st.integers(1, 3)), -(-tokens[0] // blocks[0]), -(-tokens[1] // blocks[1]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    if draw(st.booleans()):
        lengths = draw(st.lists(st.integers(0, tokens[1]), min_size=batch, max_size=batch))
        sizes["key_lengths"] = torch.tensor(lengths)
    return torch.rand(shape, generator=generator) < draw(st.sampled_from([0.0, 0.3, 0.8, 1.0])), sizes


def reachable(mask: torch.Tensor, sizes: dict) -> torch.Tensor:
    """`mask` without blocks of nothing but padding."""
    if sizes.get("key_lengths") is None:
        return mask
    starts = torch.arange(mask.shape[-1]) * sizes["key_block"]
    return mask & (starts < sizes["key_lengths"][:, None])[:, None, None]


@quick
@given(case=masks())
def test_every_form_tells_the_same(case: tuple[torch.Tensor, dict]) -> None:
    mask, sizes = case
    index = BlockIndex.from_mask(mask, **sizes).validate()
    mask = reachable(mask, sizes)
    assert torch.equal(index.mask(), mask) and torch.equal(index.counts, mask.sum(-1))
    assert torch.equal(BlockIndex.from_bitmask(index.bitmask(), **sizes).indices, index.indices)
    assert index.bitmask().shape[-1] == -(-index.columns // 8)
    counts, columns = index.padded()
    rebuilt = torch.zeros_like(mask)
    for b, j, r in torch.cartesian_prod(*(torch.arange(n) for n in mask.shape[:3])).tolist():
        row = columns[b, j, r, : counts[b, j, r]]
        rebuilt[b, j, r, row.long()] = True
        assert torch.equal(row, row.sort().values)
    assert torch.equal(rebuilt, mask)
    indptr, indices = index.bsr(index.batch - 1, index.groups - 1)
    assert indptr[0] == 0 and torch.equal(indices, index.indices[len(index.indices) - len(indices) :])
    assert index.nbytes == 4 * (
        index.indices.numel()
        + index.batch * index.groups * (index.rows + 1)
        + (0 if index.key_lengths is None else index.batch)
    )
    valid = torch.arange(sizes["keys"]) < index.valid_keys()[:, None]
    tokens = mask[:, :, torch.arange(sizes["queries"]) // sizes["query_block"]]
    tokens = tokens[..., torch.arange(sizes["keys"]) // sizes["key_block"]] & valid[:, None, None]
    assert torch.equal(index.dense_mask(), tokens)


@quick
@given(case=masks())
def test_flex_masks_hide_what_the_index_hides(case: tuple[torch.Tensor, dict]) -> None:
    mask, sizes = case
    index = BlockIndex.from_mask(mask, **sizes)
    flex = index.flex_mask(2 * index.groups)
    assert flex.seq_lengths == (index.queries, index.keys)
    assert torch.equal(flex.to_dense().bool(), index.mask().repeat_interleave(2, 1))
    rebuilt = torch.zeros(index.batch, 2 * index.groups, index.queries, index.keys, dtype=torch.bool)
    partial = (flex.kv_num_blocks, flex.kv_indices), (flex.full_kv_num_blocks, flex.full_kv_indices)
    every = torch.cartesian_prod(*(torch.arange(n) for n in rebuilt.shape[:2])).tolist()
    for whole, (counts, columns) in enumerate(partial):
        for b, h in every:
            for r in range(index.rows):
                for c in columns[b, h, r, : counts[b, h, r]].tolist():
                    keys = torch.arange(c * index.key_block, min((c + 1) * index.key_block, index.keys))
                    kept = keys >= 0 if whole else flex.mask_mod(torch.tensor(b), torch.tensor(h), None, keys)
                    rebuilt[b, h, r * index.query_block : (r + 1) * index.query_block, keys] = kept
    assert torch.equal(rebuilt, index.dense_mask().repeat_interleave(2, 1))


@quick
@given(case=masks(batch=3))
def test_batch_rows_are_joined_and_taken_apart(case: tuple[torch.Tensor, dict]) -> None:
    mask, sizes = case
    index = BlockIndex.from_mask(mask, **sizes)
    mask = index.mask()
    assert torch.equal(index.select([2, 0, 2]).validate().mask(), mask[[2, 0, 2]])
    back = BlockIndex.cat([index.select([row]) for row in range(3)]).validate()
    assert torch.equal(back.indptr, index.indptr) and torch.equal(back.indices, index.indices)
    assert torch.equal(back.valid_keys(), index.valid_keys())
    whole = BlockIndex.full(1, index.groups, **{**sizes, "key_lengths": None})
    mixed = BlockIndex.cat([whole, index])
    assert torch.equal(mixed.valid_keys()[1:], index.valid_keys()) and int(mixed.valid_keys()[0]) == index.keys
    assert torch.equal(mixed.density[0], torch.ones(index.groups)) and mixed.select([0]).is_full


def test_density_counts_what_can_be_kept() -> None:
    mask = torch.tensor([[True, False, True, True], [False, False, False, True]]).view(1, 1, 2, 4)
    sizes = {"queries": 20, "keys": 40, "query_block": 10, "key_block": 10}
    assert float(BlockIndex.from_mask(mask, **sizes).density) == 0.5
    index = BlockIndex.from_mask(mask, **sizes, key_lengths=torch.tensor([25]))
    assert float(index.density) == pytest.approx(2 / 6) and not index.is_full
    assert BlockIndex.full(1, 1, **sizes, key_lengths=torch.tensor([25])).is_full


def test_the_memory_formula_at_the_size_of_a_real_model() -> None:
    """HunyuanVideo at 720p: what the docstring says, from the formula and from a small index of the same kind."""
    rows = -(-119_056 // 64)
    assert 4 * (0.2 * 24 * rows**2 + 24 * (rows + 1)) == pytest.approx(66e6, rel=0.02)
    assert 24 * 119_056**2 == pytest.approx(340e9, rel=0.01)


def test_what_is_derived_is_made_once_and_stays_behind() -> None:
    index = BlockIndex.full(1, 1, queries=8, keys=8, query_block=4, key_block=4)
    made = []
    for _ in range(2):
        assert index.derived("twice", lambda: made.append(1) or 7) == 7
    assert made == [1]
    assert index.select([0]).derived("twice", lambda: 8) == 8
    assert index.to("cpu") is index and index.to("meta").device.type == "meta"


SIZES = {"queries": 8, "keys": 8, "query_block": 4, "key_block": 4}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query_block": 0}, "at least one token"),
        ({"key_block": -1}, "at least one token"),
        ({"queries": 0}, "needs queries and keys"),
        ({"indptr": torch.zeros(1, 1, 2, dtype=torch.int32)}, "(batch, head groups, 3)"),
        ({"indices": torch.zeros(2, 2, dtype=torch.int32)}, "flat indices"),
        ({"indices": torch.zeros(3)}, "int32"),
        ({"indices": torch.zeros(3, dtype=torch.int32, device="meta")}, "indices on meta"),
        ({"key_lengths": torch.tensor([1, 2], dtype=torch.int32)}, "one a batch row"),
        ({"indices": torch.tensor([0, 1, 2], dtype=torch.int32)}, "2 blocks of keys"),
        ({"indices": torch.tensor([1, 0, 1], dtype=torch.int32)}, "ascend"),
        ({"indices": torch.tensor([1, 1, 1], dtype=torch.int32)}, "ascend"),
        ({"indptr": torch.tensor([[[0, 2, 4]]], dtype=torch.int32)}, "from 0 to the 3 indices"),
        ({"indptr": torch.tensor([[[0, 4, 3]]], dtype=torch.int32)}, "must not decrease"),
        ({"key_lengths": torch.tensor([4], dtype=torch.int32)}, "before key_lengths"),
    ],
)
def test_a_broken_index_is_one_clear_error(change: dict[str, object], message: str) -> None:
    parts: dict[str, object] = {"indptr": torch.tensor([[[0, 2, 3]]], dtype=torch.int32), **SIZES}
    parts["indices"] = torch.tensor([0, 1, 1], dtype=torch.int32)
    with pytest.raises(ConfigError) as caught:
        BlockIndex(**{**parts, **change}).validate()  # type: ignore[arg-type]
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert BlockIndex(**parts).validate().indices.numel() == 3  # type: ignore[arg-type]


@pytest.mark.parametrize("mask", [torch.ones(1, 1, 2, 3).bool(), torch.ones(1, 1, 2, 2), torch.ones(1, 2, 2).bool()])
def test_a_mask_of_the_wrong_shape_or_type_is_refused(mask: torch.Tensor) -> None:
    with pytest.raises(ConfigError, match=r"boolean of shape \(batch, head groups, 2, 2\)"):
        BlockIndex.from_mask(mask, **SIZES)


def test_parts_over_other_tokens_are_not_joined_and_bits_of_another_width_not_read() -> None:
    index = BlockIndex.full(1, 1, **SIZES)
    with pytest.raises(ConfigError, match="cannot be joined"):
        BlockIndex.cat([index, BlockIndex.full(1, 1, **{**SIZES, "keys": 12})])
    with pytest.raises(ConfigError, match="1 bytes of uint8"):
        BlockIndex.from_bitmask(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), **SIZES)


def test_importing_attention_imports_no_triton() -> None:
    code = "import sys, outpace.kernels.attention; print('triton' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "False"
