"""What the torch backend does for every row of blocks, worked out once for an index and used at every step.

A row is cut into pieces that fit in the cache. A piece gathers its keys, or uses them where they lie in as few runs
that copying them would take longer than multiplying run by run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from ..block_index import BlockIndex


@dataclass(frozen=True, slots=True)
class Unit:
    """Query heads `first` to `end` of a batch row, which share key head `key_head` and the blocks of `group`."""

    batch: int
    first: int
    end: int
    key_head: int
    group: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Some kept blocks of a row."""

    columns: Tensor | None
    """Columns to gather; None: use `runs` in place."""
    runs: tuple[tuple[int, int], ...]
    """First key and number of keys of every stretch of neighbouring blocks."""
    count: int
    """Keys in all."""


Rows = list[tuple[int, list[Piece]]]
"""Every row that keeps a key, by its number, with its pieces."""


def units(batch: int, heads: int, key_heads: int, groups: int) -> Iterator[Unit]:
    """All heads of a call, taken together where they share keys and kept blocks."""
    parts = math.lcm(key_heads, groups)
    size = heads // parts if heads % parts == 0 else 1
    for b in range(batch):
        for first in range(0, heads, size):
            yield Unit(b, first, first + size, first * key_heads // heads, first * groups // heads)


def plan(index: BlockIndex, most: int, least_in_place: int) -> list[list[Rows]]:
    """The rows of every batch row and head group.

    Args:
        most: blocks in a piece.
        least_in_place: keys a run must have on average to be used in place.
    """
    counts, valid = index.counts.tolist(), index.valid_keys().tolist()
    columns = index.indices.tolist()
    tensors = index.indices.split(index.counts.flatten().tolist())
    made, at, number = [], 0, 0
    for b in range(index.batch):
        made.append([])
        for j in range(index.groups):
            rows: Rows = []
            for r, count in enumerate(counts[b][j]):
                pieces = _pieces(tensors[number], columns[at : at + count], most, least_in_place, index, valid[b])
                if pieces:
                    rows.append((r, pieces))
                at, number = at + count, number + 1
            made[b].append(rows)
    return made


def _pieces(
    tensor: Tensor, columns: list[int], most: int, least_in_place: int, index: BlockIndex, valid: int
) -> list[Piece]:
    parts = -(-len(columns) // most)
    pieces = []
    for p in range(parts):
        start, end = p * len(columns) // parts, (p + 1) * len(columns) // parts
        runs = _runs(columns[start:end], index.key_block, valid)
        count = sum(keys for _, keys in runs)
        if count:
            in_place = len(runs) == 1 or count >= least_in_place * len(runs)
            pieces.append(Piece(None if in_place else tensor[start:end], runs, count))
    return pieces


def _runs(columns: list[int], key_block: int, valid: int) -> tuple[tuple[int, int], ...]:
    runs: list[tuple[int, int]] = []
    for column in columns:
        first = column * key_block
        keys = min(key_block, valid - first)
        if keys <= 0:  # ascending: the rest lies beyond the valid keys too
            break
        if runs and runs[-1][0] + runs[-1][1] == first:
            runs[-1] = (runs[-1][0], runs[-1][1] + keys)
        else:
            runs.append((first, keys))
    return tuple(runs)
