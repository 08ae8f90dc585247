"""Which blocks of keys every block of queries attends to, in compressed rows.

Shapes: B batch, J groups of heads that share a pattern, N queries, M keys, R = ceil(N / query_block) rows of blocks,
C = ceil(M / key_block) columns of blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..errors import ConfigError
from . import block_views

Made = TypeVar("Made")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class BlockIndex:
    """The kept blocks of every (batch row, head group, block of queries), as compressed sparse rows.

    Memory: 4 bytes a kept block and 4 * B * J * (R + 1) for the rows. HunyuanVideo at 720p (119,056 tokens, 24 heads,
    64 x 64 blocks, density 0.2): 66 MB a layer; the same blocks as a boolean mask of tokens would be 340 GB.

    A row may be empty (its output is 0 and its LSE -inf), and the last row and column may be shorter than a block.
    Head h belongs to group h // (heads // J). Keys from `key_lengths[b]` on are hidden from batch row b, and no block
    that lies there as a whole is kept.
    """

    indptr: Tensor
    """int32 (B, J, R + 1): row r of group j keeps `indices[indptr[b, j, r] : indptr[b, j, r + 1]]`."""
    indices: Tensor
    """int32 (kept blocks): column of every kept block, ascending within a row."""
    queries: int
    """N: query tokens."""
    keys: int
    """M: key tokens."""
    query_block: int
    """Query tokens in a block."""
    key_block: int
    """Key tokens in a block."""
    key_lengths: Tensor | None = None
    """int32 (B): valid keys of every batch row, the rest is padding; None: all are valid."""
    _derived: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        check_blocks(self.query_block, self.key_block)
        if self.queries < 1 or self.keys < 1:
            raise ConfigError(f"a block index needs queries and keys, not {self.queries} and {self.keys}")
        if self.indptr.ndim != 3 or self.indptr.shape[-1] != self.rows + 1 or self.indices.ndim != 1:
            raise ConfigError(
                f"a block index over {self.queries} queries in blocks of {self.query_block} needs indptr of shape "
                f"(batch, head groups, {self.rows + 1}) and flat indices, not {tuple(self.indptr.shape)} and "
                f"{tuple(self.indices.shape)}"
            )
        if self.indptr.dtype != torch.int32 or self.indices.dtype != torch.int32:
            raise ConfigError(f"a block index needs int32, not {self.indptr.dtype} and {self.indices.dtype}")
        check_key_lengths(self.key_lengths, self.batch, self.device)
        if self.indices.device != self.device:
            raise ConfigError(f"indptr is on {self.device} and indices on {self.indices.device}; move one of them")

    @classmethod
    def from_mask(
        cls,
        mask_BJRC: Tensor,
        *,
        queries: int,
        keys: int,
        query_block: int,
        key_block: int,
        key_lengths: Tensor | None = None,
    ) -> BlockIndex:
        """The index of a boolean mask of blocks, True where kept. Blocks of nothing but padding are left out.

        Raises: ConfigError where the mask is not boolean or not of shape (batch, head groups, R, C).
        """
        check_blocks(query_block, key_block)
        rows, columns = -(-queries // query_block), -(-keys // key_block)
        if mask_BJRC.dtype != torch.bool or mask_BJRC.ndim != 4 or mask_BJRC.shape[2:] != (rows, columns):
            raise ConfigError(
                f"a mask of blocks must be boolean of shape (batch, head groups, {rows}, {columns}) for {queries} "
                f"queries and {keys} keys in blocks of {query_block} x {key_block}, not {mask_BJRC.dtype} "
                f"{tuple(mask_BJRC.shape)}"
            )
        if key_lengths is not None:
            check_key_lengths(key_lengths, mask_BJRC.shape[0], mask_BJRC.device)
            starts = torch.arange(columns, device=mask_BJRC.device) * key_block
            mask_BJRC = mask_BJRC & (starts < key_lengths[:, None]).view(-1, 1, 1, columns)
        counts = mask_BJRC.sum(-1)
        if mask_BJRC.numel() >= 2**31 and int(counts.sum()) >= 2**31:
            raise ConfigError(f"{int(counts.sum())} kept blocks are more than int32 counts; choose larger blocks")
        return cls(
            indptr=_pointers(counts),
            indices=mask_BJRC.nonzero()[:, -1].to(torch.int32),
            queries=queries,
            keys=keys,
            query_block=query_block,
            key_block=key_block,
            key_lengths=None if key_lengths is None else key_lengths.to(torch.int32),
        )

    @classmethod
    def from_bitmask(
        cls,
        bits: Tensor,
        *,
        queries: int,
        keys: int,
        query_block: int,
        key_block: int,
        key_lengths: Tensor | None = None,
    ) -> BlockIndex:
        """The index of what `bitmask` gave: uint8 (batch, head groups, R, ceil(C / 8))."""
        check_blocks(query_block, key_block)
        return cls.from_mask(
            block_views.from_bits(bits, -(-keys // key_block)),
            queries=queries,
            keys=keys,
            query_block=query_block,
            key_block=key_block,
            key_lengths=key_lengths,
        )

    @classmethod
    def full(
        cls,
        batch: int,
        groups: int,
        *,
        queries: int,
        keys: int,
        query_block: int,
        key_block: int,
        key_lengths: Tensor | None = None,
        device: torch.device | str | None = None,
    ) -> BlockIndex:
        """Every block of every row: attention with it is dense attention."""
        check_blocks(query_block, key_block)
        rows, columns = -(-queries // query_block), -(-keys // key_block)
        device = key_lengths.device if key_lengths is not None and device is None else device
        mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device).expand(batch, groups, rows, columns)
        return cls.from_mask(
            mask,
            queries=queries,
            keys=keys,
            query_block=query_block,
            key_block=key_block,
            key_lengths=key_lengths,
        )

    @classmethod
    def cat(cls, parts: Sequence[BlockIndex]) -> BlockIndex:
        """One index over the batch rows of all parts, in order: the branches of guidance in one call.

        Raises: ConfigError where the parts differ in sizes, blocks or head groups.
        """
        first, offset, pointers = parts[0], 0, []
        for part in parts:
            same = (part.queries, part.keys, part.query_block, part.key_block, part.groups)
            if same != (first.queries, first.keys, first.query_block, first.key_block, first.groups):
                raise ConfigError("indices over other tokens, blocks or head groups cannot be joined")
            pointers.append(part.indptr + offset)
            offset += part.indices.numel()
        lengths = None
        if any(part.key_lengths is not None for part in parts):
            lengths = torch.cat([part.valid_keys() for part in parts])
        return replace(
            first, indptr=torch.cat(pointers), indices=torch.cat([p.indices for p in parts]), key_lengths=lengths
        )

    def select(self, rows: Sequence[int] | Tensor) -> BlockIndex:
        """The index of these batch rows only, in this order."""
        chosen = [int(row) for row in rows]
        ends = self.indptr[:, [0, -1], [0, -1]].tolist()
        return replace(
            self,
            indptr=_pointers(self.counts[chosen]),
            indices=torch.cat([self.indices[slice(*ends[row])] for row in chosen]),
            key_lengths=None if self.key_lengths is None else self.key_lengths[chosen],
        )

    def to(self, device: torch.device | str) -> BlockIndex:
        """The same index on another device; itself where it is there already."""
        if torch.device(device) == self.device:
            return self
        lengths = None if self.key_lengths is None else self.key_lengths.to(device)
        return replace(self, indptr=self.indptr.to(device), indices=self.indices.to(device), key_lengths=lengths)

    @property
    def batch(self) -> int:
        """B."""
        return self.indptr.shape[0]

    @property
    def groups(self) -> int:
        """J: groups of heads, each with a pattern of its own."""
        return self.indptr.shape[1]

    @property
    def rows(self) -> int:
        """R: blocks of queries."""
        return -(-self.queries // self.query_block)

    @property
    def columns(self) -> int:
        """C: blocks of keys."""
        return -(-self.keys // self.key_block)

    @property
    def device(self) -> torch.device:
        """Where it lies."""
        return self.indptr.device

    @property
    def counts(self) -> Tensor:
        """int32 (B, J, R): kept blocks a row."""
        return self.indptr.diff(dim=-1)

    @property
    def nbytes(self) -> int:
        """Bytes it holds, without what backends derive from it."""
        held = [self.indptr, self.indices, *([] if self.key_lengths is None else [self.key_lengths])]
        return sum(part.nbytes for part in held)

    @property
    def density(self) -> Tensor:
        """float32 (B, J): kept blocks over all that hold a valid key. 1 keeps everything; sparsity is 1 - density."""
        valid = -(-self.valid_keys() // self.key_block) * self.rows
        return self.counts.sum(-1) / valid.clamp(min=1)[:, None]

    @property
    def is_full(self) -> bool:
        """True where every row keeps every block that holds a valid key."""
        return self.derived("full", lambda: bool((self.counts.sum((1, 2)) == self._most()).all()))

    def valid_keys(self) -> Tensor:
        """int32 (B): valid keys of every batch row, also where none was given."""
        if self.key_lengths is not None:
            return self.key_lengths
        return torch.full((self.batch,), self.keys, dtype=torch.int32, device=self.device)

    def mask(self) -> Tensor:
        """bool (B, J, R, C): True where a block is kept."""
        return block_views.mask(self)

    def dense_mask(self) -> Tensor:
        """bool (B, J, N, M): True where a token is attended to. For tests: it is as large as the attention matrix."""
        return block_views.dense_mask(self)

    def padded(self) -> tuple[Tensor, Tensor]:
        """Kept blocks a row, int32 (B, J, R), and their columns, int32 (B, J, R, largest count), zeros after the end.

        The form that FlashAttention 4 (`mask_block_cnt`, `mask_block_idx`) and VSA kernels take.
        """
        return block_views.padded(self)

    def bitmask(self) -> Tensor:
        """uint8 (B, J, R, ceil(C / 8)), lowest bit first: for storing many, an eighth of the mask."""
        return block_views.to_bits(self.mask())

    def bsr(self, batch: int, group: int) -> tuple[Tensor, Tensor]:
        """(indptr int32 (R + 1) from zero, indices) of one batch row and head group, as FlashInfer's planners take."""
        return block_views.bsr(self, batch, group)

    def flex_mask(self, heads: int) -> Any:
        """The `BlockMask` of torch's FlexAttention for this many heads."""
        return block_views.flex_mask(self, heads)

    def derived(self, name: Hashable, make: Callable[[], Made]) -> Made:
        """What `make` returns, made once and kept with the index: work lists and masks of backends.

        An index serves many denoising steps, so what is worked out from it is worth keeping.
        """
        if name not in self._derived:
            self._derived[name] = make()
        return self._derived[name]

    def validate(self) -> BlockIndex:
        """Itself, after reading all of it, for an index from elsewhere. Raises: ConfigError, saying what is wrong."""
        pointers = self.indptr.flatten(0, 1)
        if int(pointers[0, 0]) != 0 or int(pointers[-1, -1]) != self.indices.numel():
            raise ConfigError(f"indptr must run from 0 to the {self.indices.numel()} indices")
        if bool((self.counts < 0).any()) or not torch.equal(pointers[1:, 0], pointers[:-1, -1]):
            raise ConfigError("indptr must not decrease, and every group must start where the one before it ends")
        row = torch.repeat_interleave(torch.arange(self.counts.numel(), device=self.device), self.counts.flatten())
        last = (-(-self.valid_keys() // self.key_block))[row // (self.groups * self.rows)]
        if bool(((self.indices < 0) | (self.indices >= last)).any()):
            raise ConfigError(f"indices must lie in the {self.columns} blocks of keys, before key_lengths")
        if bool(((self.indices.diff() <= 0) & (row.diff() == 0)).any()):
            raise ConfigError("indices must ascend within a row, without repeats")
        return self

    def _most(self) -> Tensor:
        return -(-self.valid_keys() // self.key_block) * (self.groups * self.rows)


def check_blocks(query_block: int, key_block: int) -> None:
    """Raises: ConfigError where a block would hold no token."""
    if query_block < 1 or key_block < 1:
        raise ConfigError(f"blocks must hold at least one token, not {query_block} x {key_block}; 64 x 64 is usual")


def check_key_lengths(key_lengths: Tensor | None, batch: int, device: torch.device) -> None:
    """Raises: ConfigError where `key_lengths` is not one integer a batch row, on `device`."""
    if key_lengths is None:
        return
    if key_lengths.shape != (batch,) or key_lengths.is_floating_point():
        raise ConfigError(f"key_lengths must be {batch} integers, one a batch row, not {tuple(key_lengths.shape)}")
    if key_lengths.device != device:
        raise ConfigError(f"key_lengths are on {key_lengths.device} and the rest on {device}; move them there")


def _pointers(counts: Tensor) -> Tensor:
    ends = counts.flatten().cumsum(0).view(counts.shape)
    return torch.cat([ends[..., :1] - counts[..., :1], ends], dim=-1).to(torch.int32)
