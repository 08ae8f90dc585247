"""Block-sparse attention in plain torch, built for a CPU: take a row's kept keys, two products, next row.

What it spends its time on is two matrix products a row, at the rate of large ones. To get there every intermediate
lives in a buffer that outlives the call and stays in the cache, and the softmax needs no running maximum: see
`_Workspace._shifts`. `row_plan` says what is gathered. Threads share out heads, not operations.

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
from ..threads import share_out
from .dense import dense_attention
from .row_plan import Piece, Rows, Unit, plan, units

CACHE_BYTES = 21 << 16
"""What a piece of a row may take: its keys (or values) and scores. Two thirds of a usual second-level cache."""
IN_PLACE_BYTES = 64 << 10
"""Keys (or values) of this size are multiplied where they lie in less time than they are gathered."""
SAFE_EXPONENT = 60.0
"""exp of this, and sums of millions of them, are ordinary float32 numbers."""
SAMPLED = 64
"""One query and one key in so many say whether scores may be far from 0. It decides about speed only."""
NEGLIGIBLE = -80.0
"""exp of less is many times slower to compute, where it is below the smallest float32."""
SMALLEST_SUM = math.exp(-40.0)
"""Of a query's weights: beside it any number of weights of exp(NEGLIGIBLE) is nothing."""
LARGEST_SUM = math.exp(70.0)
"""Of a query's weights: values of up to ten million can still be summed with them."""
MOST_VIEWS = 1 << 14
GATHERED, IN_PLACE = -1, -2


def sparse(
    q: Tensor, k: Tensor, v: Tensor, index: BlockIndex, *, scale: float, return_lse: bool
) -> tuple[Tensor, Tensor]:
    """Output (B, H, N, D) of q's type and LSE float32 (B, H, N)."""
    return _sparse(q, k, v, index, scale, None)


def sparse_with_mass(
    q: Tensor, k: Tensor, v: Tensor, everything: BlockIndex, *, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The same over all blocks, with what each of them holds: mass float32 (B, H, R, C), see `block_mass`.

    Args:
        everything: an index that keeps every valid block.
    """
    mass = q.new_zeros(*q.shape[:2], everything.rows, everything.columns, dtype=torch.float32)
    return *_sparse(q, k, v, everything, scale, mass), mass


def _sparse(
    q: Tensor, k: Tensor, v: Tensor, index: BlockIndex, scale: float, mass: Tensor | None
) -> tuple[Tensor, Tensor]:
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
        cache_bytes=CACHE_BYTES,
        in_place_bytes=IN_PLACE_BYTES,
    )
    planned = (shape.most, shape.least_in_place)
    rows = index.derived(("rows", *planned), lambda: plan(index, *planned))
    valid = index.derived("valid keys", lambda: index.valid_keys().tolist())

    def run(unit: Unit) -> None:
        kept = rows[unit.batch][unit.group]
        _workspace(shape).run(unit, kept, valid[unit.batch], q, k, v, out, lse, scale, mass)

    with torch.no_grad():
        share_out(run, parts, q.device)
    return out, lse


def sparse_refuses(q: Tensor, k: Tensor, v: Tensor, index: BlockIndex, return_lse: bool) -> str | None:
    """Why `sparse` cannot take these inputs, or None."""
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (q, k, v)):
        return "it has no gradients; call it under torch.no_grad()"
    return None


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
    cache_bytes: int
    in_place_bytes: int

    @property
    def lanes(self) -> int:
        """Queries of a row: a block of every head that shares it."""
        return self.shared * self.query_block

    @property
    def most(self) -> int:
        """Blocks of keys in a piece."""
        return max(1, self.cache_bytes // (self.dtype.itemsize * self.key_block * (self.lanes + self.width)))

    @property
    def least_in_place(self) -> int:
        """Keys a run must have on average not to be gathered."""
        return self.in_place_bytes // (self.dtype.itemsize * self.width)


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
        self.some = buffer(shape.most, shape.key_block * shape.width)
        self.scores = buffer(shape.most * shape.key_block * shape.lanes)
        self.ones = buffer(shape.most * shape.key_block).fill_(1.0)
        self.sums = buffer(shape.shared * shape.queries)
        self.out = buffer(shape.lanes, shape.width)
        self.by_row = [self._row(r) for r in range(rows)]
        self.views: dict[tuple[int, int, int], tuple[Tensor, ...]] = {}
        self.blocks: Tensor | None = None

    def _row(self, r: int) -> tuple[Tensor, ...]:
        """Of row `r`: its sums, its output, and both as (S, queries, ...), the last row as short as it is."""
        shared, block = self.shape.shared, self.shape.query_block
        queries = min(block, self.shape.queries - r * block)
        sums, out = self.sums[r * shared * block :][: shared * queries], self.out[: shared * queries]
        return sums, out, sums.view(shared, queries, 1), out.view(shared, queries, -1)

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
        mass: Tensor | None,
    ) -> None:
        """Fill `out` and `lse` for the heads of `unit`, and `mass` where every block is kept."""
        shape, heads, asked = self.shape, slice(unit.first, unit.end), q[unit.batch, unit.first : unit.end]
        self.keys[: shape.keys].copy_(k[unit.batch, unit.key_head])
        self.values[: shape.keys].copy_(v[unit.batch, unit.key_head])
        queries = self._queries(asked)
        out_by_row = out[unit.batch, heads].split(shape.query_block, dim=1)
        shifts, held = None, None if mass is None else mass[unit.batch, heads]
        if float(self._limits(asked, valid, scale, SAMPLED).max()) <= SAFE_EXPONENT:
            self._run_rows(rows, queries, shifts, out_by_row, scale, held)
            least, most = (float(x) for x in self.sums.aminmax())
        else:
            least = most = 0.0
        if not (least >= SMALLEST_SUM and most <= LARGEST_SUM):
            shifts = self._shifts(self._limits(asked, valid, scale, 1))
            self._run_rows(rows, queries, shifts, out_by_row, scale, held)
            self._repair(rows, queries, shifts, out_by_row, scale, held)
        for r in set(range(self.rows)).difference(r for r, _ in rows) if len(rows) < self.rows else ():
            self.by_row[r][0].zero_()
            out_by_row[r].zero_()
        found = self._by_head(self.sums).log()
        lse[unit.batch, heads] = found if shifts is None else found + self._by_head(torch.cat(shifts))

    def _run_rows(
        self,
        rows: Rows,
        queries: list[Tensor],
        shifts: tuple[Tensor, ...] | None,
        out_by_row: tuple[Tensor, ...],
        scale: float,
        mass: Tensor | None,
    ) -> None:
        if len(rows) < self.rows:
            self.sums.fill_(1.0)
        for r, pieces in rows:
            by_block = None if mass is None else self._by_block(mass.shape[-1], queries[r].shape[1])
            self._attend(r, pieces, queries[r], None if shifts is None else shifts[r], scale, by_block)
            sums, _, divisors, out = self.by_row[r]
            torch.div(out, divisors, out=out_by_row[r])
            if mass is not None and by_block is not None:
                self._hold(mass[:, r], by_block, sums)

    def _by_block(self, columns: int, lanes: int) -> Tensor:
        """A buffer for what each block holds of every lane of a row: (C, lanes)."""
        if self.blocks is None or len(self.blocks) < columns * self.shape.lanes:
            self.blocks = self.sums.new_zeros(columns * self.shape.lanes)
        return self.blocks[: columns * lanes].view(columns, lanes).zero_()

    def _hold(self, mass: Tensor, by_block: Tensor, sums: Tensor) -> None:
        """Write the mass (S, C) of one row: of every head, what its queries give each block as a share of their own."""
        shares = by_block.div_(sums.clamp_min(torch.finfo(sums.dtype).tiny))
        mass.copy_(shares.unflatten(1, (self.shape.shared, -1)).sum(-1).t())

    def _by_head(self, x: Tensor) -> Tensor:
        """(S * N), one row after another, as (S, N)."""
        if self.shape.shared == 1:
            return x[None]
        parts = x.split(self.shape.lanes)
        return torch.cat([part.view(self.shape.shared, -1) for part in parts], dim=1)

    def _queries(self, q: Tensor) -> list[Tensor]:
        """(S, N, D) as (D, lanes) of every row: where they lie, if this is one head of the right type."""
        if self.shape.shared == 1 and q.dtype == self.shape.dtype:
            return list(q[0].t().split(self.shape.query_block, dim=1))
        return [
            part.to(self.shape.dtype).reshape(-1, self.shape.width).t() for part in q.split(self.shape.query_block, 1)
        ]

    def _attend(
        self,
        r: int,
        pieces: list[Piece],
        queries: Tensor,
        shift: Tensor | None,
        scale: float,
        by_block: Tensor | None,
    ) -> None:
        """Row `r` of `sums`, and `out`, which is not divided by it yet; `by_block` takes the sums of each block of
        keys, where all of them are kept."""
        sums, out, _, _ = self.by_row[r]
        lanes, block = queries.shape[1], 0
        for number, piece in enumerate(pieces):
            scores, weights, ones = self._scores(0, piece.count, lanes)
            gathered = self.some
            if piece.columns is None:
                parts = self._parts(piece, lanes)
            else:
                gathered, tokens = self._gathered(piece.count)
                torch.index_select(self.key_blocks, 0, piece.columns, out=gathered)
                parts = [(tokens, tokens, scores, weights)]
            for keys, _, some_scores, _ in parts:
                _score(keys, queries, shift, scale, some_scores)
            scores.exp_()
            if by_block is not None:
                block = self._add_blocks(scores, by_block, block)
            elif number:
                sums.addmv_(weights, ones)
            else:
                torch.mv(weights, ones, out=sums)
            if piece.columns is not None:  # over the keys, whose place is in the cache and of no use any more
                torch.index_select(self.value_blocks, 0, piece.columns, out=gathered)
            for at, (_, values, _, some_weights) in enumerate(parts):
                _add(some_weights, values, out, number + at)
        if by_block is not None:
            torch.sum(by_block, 0, out=sums)

    def _add_blocks(self, weights: Tensor, by_block: Tensor, block: int) -> int:
        """Sum the weights (keys, lanes) of some blocks, from number `block` on; the number of the next one."""
        size = self.shape.key_block
        whole = len(weights) // size
        torch.sum(weights[: whole * size].view(whole, size, weights.shape[1]), 1, out=by_block[block : block + whole])
        if whole * size < len(weights):  # the last keys of all
            torch.sum(weights[whole * size :], 0, out=by_block[block + whole])
            whole += 1
        return block + whole

    def _parts(self, piece: Piece, lanes: int) -> list[tuple[Tensor, ...]]:
        """Keys, values, scores and weights of every run of a piece that is used in place."""
        at, parts = 0, []
        for first, count in piece.runs:
            parts.append((*self._in_place(first, count), *self._scores(at, count, lanes)[:2]))
            at += count
        return parts

    def _gathered(self, count: int) -> tuple[Tensor, ...]:
        found = self.views.get((GATHERED, count, 0))
        if found is None:
            blocks = self.some[: -(-count // self.shape.key_block)]
            found = blocks, blocks.view(-1, self.shape.width)[:count]
            self._remember((GATHERED, count, 0), found)
        return found

    def _in_place(self, first: int, count: int) -> tuple[Tensor, ...]:
        found = self.views.get((IN_PLACE, first, count))
        if found is None:
            found = self.keys[first : first + count], self.values[first : first + count]
            self._remember((IN_PLACE, first, count), found)
        return found

    def _scores(self, at: int, count: int, lanes: int) -> tuple[Tensor, ...]:
        found = self.views.get((at, count, lanes))
        if found is None:
            scores = self.scores[at * lanes : (at + count) * lanes].view(count, lanes)
            found = scores, scores.t(), self.ones[:count]
            self._remember((at, count, lanes), found)
        return found

    def _remember(self, name: tuple[int, int, int], views: tuple[Tensor, ...]) -> None:
        """Keep views that every step makes again: making one takes as long as starting a product."""
        if len(self.views) >= MOST_VIEWS:
            self.views.clear()
        self.views[name] = views

    def _limits(self, q: Tensor, valid: int, scale: float, step: int) -> Tensor:
        """(S, queries), every `step`-th: what no score with every `step`-th valid key exceeds, |q| max |k|."""
        keys = self.keys[:valid:step].norm(dim=-1)
        longest = abs(scale) * float(keys.max()) if valid else 0.0
        return q[:, ::step].to(self.shape.dtype).norm(dim=-1) * longest

    def _shifts(self, limits: Tensor) -> tuple[Tensor, ...]:
        """What to take off the scores of every row's queries, none of which exceeds its limit.

        exp(score) is as precise as exp(score - maximum) as long as neither it nor the sum leaves float32, so nothing
        is taken off as a rule, and sums out of range tell where that was wrong. Then, just enough is taken off that no
        score can overflow. That may push all of a query's weights under the smallest numbers; `_repair` finds and
        repeats such rows.
        """
        limits = (limits - SAFE_EXPONENT).clamp_(min=0.0)
        return tuple(part.flatten() for part in limits.split(self.shape.query_block, dim=1))

    def _repair(
        self,
        rows: Rows,
        queries: list[Tensor],
        shifts: tuple[Tensor, ...],
        out_by_row: tuple[Tensor, ...],
        scale: float,
        mass: Tensor | None,
    ) -> None:
        """Repeat the rows with a query whose weights were all but lost, with a running maximum."""
        for r, pieces in rows:
            sums, out, _, out_by_head = self.by_row[r]
            if not bool((sums < SMALLEST_SUM).any()):
                continue
            runs = [self._in_place(*run) for piece in pieces for run in piece.runs]
            found, found_lse = dense_attention(
                queries[r].t()[None, None],
                torch.cat([keys for keys, _ in runs])[None, None],
                torch.cat([values for _, values in runs])[None, None],
                scale=scale,
                return_lse=True,
            )
            out.copy_(found[0, 0])
            out_by_row[r].copy_(out_by_head)
            sums.fill_(1.0)
            shifts[r].copy_(found_lse[0, 0])
            if mass is not None:
                keys = torch.cat([keys for keys, _ in runs])
                weights = torch.addmm(-found_lse[0, 0].to(keys.dtype), keys, queries[r], alpha=scale).exp_()
                by_block = self._by_block(mass.shape[-1], weights.shape[1])
                self._add_blocks(weights, by_block, 0)
                self._hold(mass[:, r], by_block, by_block.sum(0))


def _score(keys: Tensor, queries: Tensor, shift: Tensor | None, scale: float, scores: Tensor) -> None:
    if shift is None:
        torch.addmm(scores, keys, queries, beta=0.0, alpha=scale, out=scores)
    else:
        torch.addmm(shift, keys, queries, beta=-1.0, alpha=scale, out=scores).clamp_(min=NEGLIGIBLE)


def _add(weights: Tensor, values: Tensor, out: Tensor, started: int) -> None:
    if started:
        out.addmm_(weights, values)
    else:
        torch.mm(weights, values, out=out)
