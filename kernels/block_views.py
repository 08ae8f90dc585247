"""The same kept blocks in the forms that other kernels take: masks, bits, padded lists, FlexAttention, FlashInfer."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from ..errors import ConfigError

BITS = (1, 2, 4, 8, 16, 32, 64, 128)


class Blocks(Protocol):
    """What is read of a `BlockIndex`, whose words and shapes these are."""

    @property
    def indptr(self) -> Tensor: ...
    @property
    def indices(self) -> Tensor: ...
    @property
    def counts(self) -> Tensor: ...
    @property
    def key_lengths(self) -> Tensor | None: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def batch(self) -> int: ...
    @property
    def groups(self) -> int: ...
    @property
    def rows(self) -> int: ...
    @property
    def columns(self) -> int: ...
    @property
    def queries(self) -> int: ...
    @property
    def keys(self) -> int: ...
    @property
    def query_block(self) -> int: ...
    @property
    def key_block(self) -> int: ...


def row_of_each(index: Blocks) -> Tensor:
    """int64 (kept blocks): the flat (batch, group, row) every kept block belongs to."""
    counts = index.counts.flatten()
    rows = torch.arange(counts.numel(), device=index.device)
    return torch.repeat_interleave(rows, counts, output_size=index.indices.numel())


def mask(index: Blocks) -> Tensor:
    """bool (B, J, R, C)."""
    flat = torch.zeros(index.batch * index.groups * index.rows, index.columns, dtype=torch.bool, device=index.device)
    flat[row_of_each(index), index.indices.long()] = True
    return flat.view(index.batch, index.groups, index.rows, index.columns)


def dense_mask(index: Blocks) -> Tensor:
    """bool (B, J, N, M)."""
    tokens = mask(index).repeat_interleave(index.query_block, 2).repeat_interleave(index.key_block, 3)
    tokens = tokens[:, :, : index.queries, : index.keys]
    if index.key_lengths is None:
        return tokens
    valid = torch.arange(index.keys, device=index.device) < index.key_lengths[:, None]
    return tokens & valid[:, None, None]


def padded(index: Blocks, width: int | None = None) -> tuple[Tensor, Tensor]:
    """int32 (B, J, R) and int32 (B, J, R, width)."""
    counts, rows = index.counts, row_of_each(index)
    width = max(int(counts.max()), 1) if width is None else width
    filled = torch.zeros(counts.numel(), width, dtype=torch.int32, device=index.device)
    starts = index.indptr[..., :-1].flatten()
    filled[rows, torch.arange(rows.numel(), device=index.device) - starts[rows]] = index.indices
    return counts, filled.view(*counts.shape, width)


def to_bits(blocks: Tensor) -> Tensor:
    """bool (..., C) as uint8 (..., ceil(C / 8)), lowest bit first."""
    eights = torch.nn.functional.pad(blocks.to(torch.uint8), (0, -blocks.shape[-1] % 8)).unflatten(-1, (-1, 8))
    return (eights * torch.tensor(BITS, dtype=torch.uint8, device=blocks.device)).sum(-1, dtype=torch.uint8)


def from_bits(bits: Tensor, columns: int) -> Tensor:
    """The inverse of `to_bits`. Raises: ConfigError where the bits are of another kind or number."""
    if bits.dtype != torch.uint8 or bits.shape[-1] != -(-columns // 8):
        raise ConfigError(
            f"{columns} blocks of keys need {-(-columns // 8)} bytes of uint8 a row, not {bits.shape[-1]} of "
            f"{bits.dtype}"
        )
    blocks = (bits[..., None] & torch.tensor(BITS, dtype=torch.uint8, device=bits.device)) != 0
    return blocks.flatten(-2)[..., :columns]


def flex_mask(index: Blocks, heads: int) -> Any:
    """A BlockMask over (B, heads, N, M): blocks cut by `key_lengths` are masked by token, all others are full."""
    from torch.nn.attention.flex_attention import BlockMask

    counts, columns = padded(index, index.columns)
    repeats = heads // index.groups
    counts, columns = counts.repeat_interleave(repeats, 1), columns.repeat_interleave(repeats, 1)
    sizes: dict[str, Any] = {
        "BLOCK_SIZE": (index.query_block, index.key_block),
        "seq_lengths": (index.queries, index.keys),
    }
    none = torch.zeros_like(counts)
    lengths = index.key_lengths
    if lengths is None:
        return BlockMask.from_kv_blocks(none, torch.zeros_like(columns), counts, columns, **sizes)
    # Ascending within a row, so a block that is cut by the end of the keys is the last of its row.
    cut_column = (lengths // index.key_block)[:, None, None]
    last = columns.gather(-1, (counts - 1).clamp(min=0).long()[..., None])[..., 0]
    cut = ((lengths % index.key_block != 0)[:, None, None] & (counts > 0) & (last == cut_column)).to(torch.int32)
    partial = torch.zeros_like(columns)
    partial[..., 0] = last * cut

    def before_the_end(b: Tensor, _h: Tensor, _query: Tensor, key: Tensor) -> Tensor:
        return key < lengths[b]

    return BlockMask.from_kv_blocks(cut, partial, counts - cut, columns, mask_mod=before_the_end, **sizes)


def bsr(index: Blocks, batch: int, group: int) -> tuple[Tensor, Tensor]:
    """int32 (R + 1) from zero and int32 (kept blocks of this group)."""
    pointers = index.indptr[batch, group]
    start, end = int(pointers[0]), int(pointers[-1])
    return pointers - start, index.indices[start:end]
