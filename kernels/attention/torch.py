"""Block-sparse attention in plain torch, built for one CPU core: take a row's kept keys, two products, next row.

What it spends its time on is two matrix products a row, at the rate of large ones. To get there every intermediate
lives in a buffer that outlives the call and stays in the cache, and the softmax needs no running maximum: see
`_Workspace._shifts`. `row_plan` says what is gathered.

Shapes: B batch, H query heads, G key heads, N queries, M keys, D width, R rows of blocks of queries, S query heads that
share their keys and kept blocks (a unit).
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

import torch
from torch import Tensor

from ..block_index import BlockIndex
from .dense import dense_attention
from .row_plan import Piece, Rows, Unit, plan, units

CACHE_BYTES = 1 << 20
"""What a piece of a row may take: its keys, values and scores. Half of a usual second-level cache."""
IN_PLACE_BYTES = 48 << 10
"""Keys (or values) of this size are multiplied where they lie in less time than they are gathered."""
SAFE_EXPONENT = 60.0
"""exp of this and of its negative, and sums of millions of them, are ordinary float32 numbers."""
NEGLIGIBLE = -80.0
"""exp of less is many times slower to compute, where it is below the smallest float32."""
SMALLEST_SUM = math.exp(-40.0)
"""Of a query's weights: beside it any number of weights of exp(NEGLIGIBLE) is nothing."""
MOST_VIEWS = 1 << 14


def sparse(
    q: Tensor, k: Tensor, v: Tensor, index: BlockIndex, *, scale: float, return_lse: bool
) -> tuple[Tensor, Tensor]:
    """Output (B, H, N, D) of q's type and LSE float32 (B, H, N)."""
    out = torch.empty_like(q)
    lse = q.new_empty(q.shape[:3], dtype=torch.float32)
    parts = list(units(q.shape[0], q.shape[1], k.shape[1], index.groups))
    shape = _Shape(
        queries=index.queries,
        keys=index.keys,
        query_block=index.query_block,
        key_block=index.key_block,
        shared=parts[0].end - parts[0].first,
        width=q.shape[-1],
        dtype=torch.promote_types(q.dtype, torch.float32),
        device=q.device,
    )
    planned = (shape.most, shape.least_in_place)
    rows = index.derived(("rows", *planned), lambda: plan(index, *planned))
    valid = index.derived("valid keys", lambda: index.valid_keys().tolist())
    with torch.no_grad():
        workspace = _workspace(shape)
        for unit in parts:
            workspace.run(unit, rows[unit.batch][unit.group], valid[unit.batch], q, k, v, out, lse, scale)
    return out, lse


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

    @property
    def least_in_place(self) -> int:
        """Keys a run must have on average not to be gathered."""
        return IN_PLACE_BYTES // (self.dtype.itemsize * self.width)


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
        self.rows = rows = -(-shape.queries // shape.query_block)
        columns = -(-shape.keys // shape.key_block)

        def buffer(*sizes: int) -> Tensor:
            return torch.zeros(sizes, dtype=shape.dtype, device=shape.device)

        self.key_blocks, self.value_blocks = (buffer(columns, shape.key_block * shape.width) for _ in range(2))
        self.keys, self.values = (x.view(-1, shape.width) for x in (self.key_blocks, self.value_blocks))
        self.some_keys, self.some_values = (buffer(shape.most, shape.key_block * shape.width) for _ in range(2))
        self.scores = buffer(shape.most * shape.key_block * shape.lanes)
        self.queries = buffer(shape.shared, rows * shape.query_block, shape.width)
        self.turned = buffer(rows, shape.width, shape.lanes)
        self.sums = buffer(rows, shape.lanes)
        self.out = buffer(shape.lanes, shape.width)
        self.out_by_head = self.out.view(shape.shared, shape.query_block, shape.width)
        divisors = self.sums.view(rows, shape.shared, shape.query_block, 1)
        self.by_row = list(zip(self.turned.unbind(), self.sums.unbind(), divisors.unbind(), strict=True))
        self.views: dict[tuple[str, int, int], tuple[Tensor, ...]] = {}

    def run(
        self,
        unit: Unit,
        rows: Rows,
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
        # In this order every copy is read again while it is in the cache.
        self.keys[: shape.keys].copy_(k[unit.batch, unit.key_head])
        longest = self.keys[:valid].norm(dim=-1).max() if valid else 0.0
        torch.mul(q[unit.batch, heads], scale, out=self.queries[:, : shape.queries])
        shifts = self._shifts(self.queries.norm(dim=-1).mul_(longest))
        by_row = self.queries.view(shape.shared, self.rows, shape.query_block, shape.width)
        self.turned.view(self.rows, shape.width, shape.shared, -1).copy_(by_row.permute(1, 3, 0, 2))
        self.values[: shape.keys].copy_(v[unit.batch, unit.key_head])
        if len(rows) < self.rows:
            self.sums.zero_()
            out[unit.batch, heads] = 0.0
        out_by_row = out[unit.batch, heads].split(shape.query_block, dim=1)
        for r, pieces in rows:
            self._attend(r, pieces, None if shifts is None else shifts[r])
            self._give(r, out_by_row[r])
        if shifts is not None:
            self._repair(rows, shifts, out_by_row)
        found = self._by_head(self.sums).log()
        lse[unit.batch, heads] = found if shifts is None else found + self._by_head(shifts)

    def _attend(self, r: int, pieces: list[Piece], shift: Tensor | None) -> None:
        """Row `r` of `sums`, and `out`, which is not divided by it yet."""
        queries, sums, _ = self.by_row[r]
        started = False
        for piece in pieces:
            parts = [self._in_place(*run) for run in piece.runs] if piece.columns is None else [self._gathered(piece)]
            at = 0
            for keys, _values in parts:
                scores, _ = self._scores(at, len(keys))
                if shift is None:
                    torch.mm(keys, queries, out=scores)
                else:
                    torch.addmm(shift, keys, queries, beta=-1.0, out=scores).clamp_(min=NEGLIGIBLE)
                at += len(keys)
            scores, _ = self._scores(0, piece.count)
            scores.exp_()
            if started:
                sums.add_(scores.sum(0))
            else:
                torch.sum(scores, 0, out=sums)
            at = 0
            for _keys, values in parts:
                _, weights = self._scores(at, len(values))
                if started:
                    self.out.addmm_(weights, values)
                else:
                    torch.mm(weights, values, out=self.out)
                started, at = True, at + len(values)

    def _give(self, r: int, into: Tensor) -> None:
        queries = into.shape[1]
        torch.div(self.out_by_head[:, :queries], self.by_row[r][2][:, :queries], out=into)

    def _gathered(self, piece: Piece) -> tuple[Tensor, ...]:
        blocks, count = len(piece.columns), piece.count  # pyright: ignore[reportArgumentType]
        found = self.views.get(("gathered", blocks, count))
        if found is None:
            gathered = self.some_keys[:blocks], self.some_values[:blocks]
            found = *gathered, *(part.view(-1, self.shape.width)[:count] for part in gathered)
            self._remember(("gathered", blocks, count), found)
        torch.index_select(self.key_blocks, 0, piece.columns, out=found[0])
        torch.index_select(self.value_blocks, 0, piece.columns, out=found[1])
        return found[2:]

    def _in_place(self, first: int, count: int) -> tuple[Tensor, ...]:
        found = self.views.get(("in place", first, count))
        if found is None:
            found = self.keys[first : first + count], self.values[first : first + count]
            self._remember(("in place", first, count), found)
        return found

    def _scores(self, at: int, count: int) -> tuple[Tensor, ...]:
        found = self.views.get(("scores", at, count))
        if found is None:
            scores = self.scores.view(-1, self.shape.lanes)[at : at + count]
            found = scores, scores.t()
            self._remember(("scores", at, count), found)
        return found

    def _remember(self, name: tuple[str, int, int], views: tuple[Tensor, ...]) -> None:
        """Keep views that every step makes again: making one takes as long as starting a product."""
        if len(self.views) >= MOST_VIEWS:
            self.views.clear()
        self.views[name] = views

    def _by_head(self, x: Tensor) -> Tensor:
        """(R, S * query_block) as (S, N)."""
        by_head = x.view(self.rows, self.shape.shared, self.shape.query_block).transpose(0, 1)
        return by_head.reshape(self.shape.shared, -1)[:, : self.shape.queries]

    def _shifts(self, limits: Tensor) -> Tensor | None:
        """What to take off the scores of every query, (R, S * query_block), or None where they need nothing.

        `limits` (S, N) are what no score of a query exceeds: |q| max |k|.

        exp(score) is as precise as exp(score - maximum) as long as neither it nor the sum leaves float32. So below
        `SAFE_EXPONENT` nothing is taken off; above, just enough that none can overflow. That may push all of a query's
        weights under the smallest numbers; `_repair` finds and repeats such rows.
        """
        if float(limits.max()) <= SAFE_EXPONENT:
            return None
        limits = limits.view(self.shape.shared, self.rows, -1).transpose(0, 1).reshape(self.rows, -1)
        return (limits - SAFE_EXPONENT).clamp_(min=0.0)

    def _repair(self, rows: Rows, shifts: Tensor, out_by_row: tuple[Tensor, ...]) -> None:
        """Repeat the rows with a query whose weights were all but lost, with a running maximum."""
        lost = (self.sums < SMALLEST_SUM).any(1).tolist()
        for r, pieces in rows:
            if not lost[r]:
                continue
            runs = [self._in_place(*run) for piece in pieces for run in piece.runs]
            out, found = dense_attention(
                self.turned[None, None, r].mT,
                torch.cat([keys for keys, _ in runs])[None, None],
                torch.cat([values for _, values in runs])[None, None],
                scale=1.0,
                return_lse=True,
            )
            self.out.copy_(out[0, 0])
            self.sums[r] = 1.0
            self._give(r, out_by_row[r])
            shifts[r] = found[0, 0]
