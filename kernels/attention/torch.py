"""Block-sparse attention in plain torch, built for one CPU core: gather a row's kept keys, two products, next row.

What it spends its time on is two matrix products a row, at the rate of large ones. To get there: every intermediate
lives in a buffer that is allocated once and stays in the cache, long rows are cut into pieces that fit there, kept
blocks that lie next to each other are used where they are, and the softmax needs no running maximum (see `_shifts`).

Shapes: B batch, H query heads, G key heads, N queries, M keys, D width, R rows of blocks of queries; a unit is the
query heads that share both their keys and their kept blocks, S of them.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..block_index import BlockIndex
from .dense import dense_attention

CACHE_BYTES = 1 << 20
"""What a piece of a row may take: its keys, values and scores. Half of a usual second-level cache."""
SAFE_EXPONENT = 60.0
"""exp of this and of its negative, and sums of millions of them, are ordinary float32 numbers."""
SMALLEST_SUM = math.exp(-SAFE_EXPONENT)

Piece = tuple[Tensor | None, int, int]
"""Columns to gather, or None and the first of neighbouring ones; then how many keys these are."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Query heads `first` to `end` of a batch row, that share key head `key_head` and the blocks of `group`."""

    batch: int
    first: int
    end: int
    key_head: int
    group: int


def sparse(
    q: Tensor, k: Tensor, v: Tensor, index: BlockIndex, *, scale: float, return_lse: bool
) -> tuple[Tensor, Tensor]:
    """Output (B, H, N, D) of q's type and LSE float32 (B, H, N)."""
    out = torch.empty_like(q)
    lse = q.new_empty(q.shape[:3], dtype=torch.float32)
    units = list(_units(q.shape[0], q.shape[1], k.shape[1], index.groups))
    shape = _Shape(
        queries=index.queries,
        keys=index.keys,
        query_block=index.query_block,
        key_block=index.key_block,
        shared=units[0].end - units[0].first,
        width=q.shape[-1],
        dtype=torch.promote_types(q.dtype, torch.float32),
        device=q.device,
    )
    plan = index.derived(("torch rows", shape.most), lambda: _plan(index, shape.most))
    valid = index.derived("valid keys", lambda: index.valid_keys().tolist())
    with torch.no_grad():
        workspace = _workspace(shape)
        for unit in units:
            rows = plan[unit.batch][unit.group]
            workspace.run(unit, rows, valid[unit.batch], q, k, v, out, lse, scale)
    return out, lse


def _units(batch: int, heads: int, key_heads: int, groups: int) -> Iterator[Unit]:
    parts = math.lcm(key_heads, groups)
    size = heads // parts if heads % parts == 0 else 1
    for b in range(batch):
        for first in range(0, heads, size):
            yield Unit(b, first, first + size, first * key_heads // heads, first * groups // heads)


def _plan(index: BlockIndex, most: int) -> list[list[list[tuple[int, list[Piece]]]]]:
    """For every batch row and head group: the non-empty rows, each in pieces of at most `most` blocks."""
    counts, valid = index.counts.tolist(), index.valid_keys().tolist()
    columns = index.indices.tolist()
    tensors = index.indices.split(index.counts.flatten().tolist())
    plan, at, row = [], 0, 0
    for b in range(index.batch):
        plan.append([])
        for j in range(index.groups):
            plan[b].append([])
            for r, count in enumerate(counts[b][j]):
                if count:
                    pieces = _pieces(tensors[row], columns[at : at + count], most, index.key_block, valid[b])
                    plan[b][j].append((r, pieces))
                at, row = at + count, row + 1
    return plan


def _pieces(tensor: Tensor, columns: list[int], most: int, key_block: int, valid: int) -> list[Piece]:
    parts = -(-len(columns) // most)
    pieces = []
    for p in range(parts):
        start, end = p * len(columns) // parts, (p + 1) * len(columns) // parts
        # Ascending, so only the last block can reach beyond the valid keys.
        keys = (end - start) * key_block - max(0, (columns[end - 1] + 1) * key_block - valid)
        if keys > 0:
            neighbours = columns[end - 1] - columns[start] == end - 1 - start
            pieces.append((None if neighbours else tensor[start:end], columns[start], keys))
    return pieces


@dataclass(frozen=True, kw_only=True, slots=True)
class _Shape:
    """What the buffers of a unit depend on."""

    queries: int
    keys: int
    query_block: int
    key_block: int
    shared: int
    width: int
    dtype: torch.dtype
    device: torch.device

    @property
    def lanes(self) -> int:
        """Queries of a row: a block of every head that shares it."""
        return self.shared * self.query_block

    @property
    def most(self) -> int:
        """Blocks of keys in a piece."""
        return max(1, CACHE_BYTES // (self.dtype.itemsize * self.key_block * (self.lanes + 2 * self.width)))


class _Kept(threading.local):
    """The workspace of the last call on this thread: fresh memory is mapped page by page, slower than it is used."""

    workspace: _Workspace | None = None


_kept = _Kept()


def _workspace(shape: _Shape) -> _Workspace:
    if _kept.workspace is None or _kept.workspace.shape != shape:
        _kept.workspace = None
        with torch.inference_mode(False):  # one made in inference mode could not be written to outside of it
            _kept.workspace = _Workspace(shape)
    return _kept.workspace


class _Workspace:
    """Buffers for one unit after another, and the loop over the rows of a unit."""

    def __init__(self, shape: _Shape) -> None:
        self.shape = shape
        rows, columns = -(-shape.queries // shape.query_block), -(-shape.keys // shape.key_block)
        self.rows = rows

        def buffer(*sizes: int) -> Tensor:
            return torch.zeros(sizes, dtype=shape.dtype, device=shape.device)

        self.blocks_of_keys, self.blocks_of_values = (buffer(columns, shape.key_block * shape.width) for _ in range(2))
        self.keys, self.values = (x.view(-1, shape.width) for x in (self.blocks_of_keys, self.blocks_of_values))
        self.some_keys, self.some_values = (buffer(shape.most, shape.key_block * shape.width) for _ in range(2))
        self.scores = buffer(shape.most * shape.key_block * shape.lanes)
        self.queries = buffer(shape.shared, rows * shape.query_block, shape.width)
        self.turned = buffer(rows, shape.width, shape.lanes)
        self.sums = buffer(rows, shape.lanes)
        self.outs = buffer(rows, shape.lanes, shape.width)
        self.by_row = list(zip(self.turned.unbind(), self.sums.unbind(), self.outs.unbind(), strict=True))
        self.views: dict[int, tuple[Tensor, ...]] = {}

    def run(
        self,
        unit: Unit,
        rows: list[tuple[int, list[Piece]]],
        valid: int,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        lse: Tensor,
        scale: float,
    ) -> None:
        """Fill `out` and `lse` for the heads of `unit`."""
        shape, heads = self.shape, slice(unit.first, unit.end)
        self.keys[: shape.keys].copy_(k[unit.batch, unit.key_head])
        self.values[: shape.keys].copy_(v[unit.batch, unit.key_head])
        self.queries[:, : shape.queries].copy_(q[unit.batch, heads]).mul_(scale)
        by_row = self.queries.view(shape.shared, self.rows, shape.query_block, shape.width)
        self.turned.view(self.rows, shape.width, shape.shared, -1).copy_(by_row.permute(1, 3, 0, 2))
        shifts = self._shifts(valid)
        if len(rows) < self.rows:
            self.sums.zero_()
            self.outs.zero_()
        self._attend(rows, shifts)
        if shifts is not None:
            self._repair(rows, shifts)
        sums, outs = self._by_head(self.sums), self._by_head(self.outs)
        torch.div(outs, sums.clamp(min=SMALLEST_SUM)[..., None], out=out[unit.batch, heads])
        found = sums.log()
        lse[unit.batch, heads] = found if shifts is None else found + self._by_head(shifts)

    def _attend(self, rows: list[tuple[int, list[Piece]]], shifts: Tensor | None) -> None:
        key_block = self.shape.key_block
        for r, pieces in rows:
            queries, sums, outs = self.by_row[r]
            for number, (columns, first, count) in enumerate(pieces):
                gathered_keys, gathered_values, some_keys, some_values, scores, weights = self._views(count)
                if columns is None:
                    some = slice(first * key_block, first * key_block + count)
                    some_keys, some_values = self.keys[some], self.values[some]
                else:
                    torch.index_select(self.blocks_of_keys, 0, columns, out=gathered_keys)
                    torch.index_select(self.blocks_of_values, 0, columns, out=gathered_values)
                if shifts is None:
                    torch.mm(some_keys, queries, out=scores)
                else:
                    torch.addmm(shifts[r], some_keys, queries, beta=-1.0, out=scores)
                scores.exp_()
                if number == 0:
                    torch.sum(scores, 0, out=sums)
                    torch.mm(weights, some_values, out=outs)
                else:
                    sums.add_(scores.sum(0))
                    outs.addmm_(weights, some_values)

    def _views(self, count: int) -> tuple[Tensor, ...]:
        found = self.views.get(count)
        if found is None:
            blocks = -(-count // self.shape.key_block)
            gathered = self.some_keys[:blocks], self.some_values[:blocks]
            scores = self.scores[: count * self.shape.lanes].view(count, -1)
            found = (*gathered, *(part.view(-1, self.shape.width)[:count] for part in gathered), scores, scores.t())
            self.views[count] = found
        return found

    def _by_head(self, x: Tensor) -> Tensor:
        """(R, S * query_block, ...) as (S, N, ...)."""
        x = x.view(self.rows, self.shape.shared, self.shape.query_block, *x.shape[2:]).transpose(0, 1)
        return x.flatten(1, 2)[:, : self.shape.queries]

    def _shifts(self, valid: int) -> Tensor | None:
        """What to take off the scores of every query, (R, S * query_block), or None where they need nothing.

        exp(score) is as precise as exp(score - maximum) as long as neither it nor the sum leaves float32. No score
        exceeds |q| max |k|, so below `SAFE_EXPONENT` nothing is taken off; above, just enough that none can overflow.
        That may push all of a query's weights under the smallest numbers; `_repair` finds and repeats such rows.
        """
        if not valid:
            return None
        limits = self.queries.norm(dim=-1) * self.keys[:valid].norm(dim=-1).max()
        if float(limits.max()) <= SAFE_EXPONENT:
            return None
        limits = limits.view(self.shape.shared, self.rows, -1).transpose(0, 1).reshape(self.rows, -1)
        return (limits - SAFE_EXPONENT).clamp_(min=0)

    def _repair(self, rows: list[tuple[int, list[Piece]]], shifts: Tensor) -> None:
        """Repeat the rows with a query whose weights were all but lost, with a running maximum."""
        lost = (self.sums < SMALLEST_SUM).any(1).tolist()
        step = torch.arange(self.shape.key_block, device=self.shape.device)
        for r, pieces in rows:
            if not lost[r]:
                continue
            tokens = []
            for columns, first, count in pieces:
                if columns is None:
                    columns = torch.arange(first, first - (-count // len(step)), device=step.device)
                tokens.append((columns[:, None] * len(step) + step).flatten()[:count])
            some = torch.cat(tokens)
            out, found = dense_attention(
                self.turned[None, None, r].mT,
                self.keys[some][None, None],
                self.values[some][None, None],
                scale=1.0,
                return_lse=True,
            )
            self.outs[r], self.sums[r], shifts[r] = out[0, 0], 1.0, found[0, 0]
