"""One search: the exact mass of every block, what to keep of it, and the error that this makes where it is asked for.

One mass serves as many selections as are asked for: those of several noise levels, which keep more or less of it.

Shapes: B batch, H query heads, G key heads, N tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from ...kernels.attention import BlockIndex, block_mass, dense_attention, searched_attention, sparse_attention
from ...kernels.precision import widest
from .selection import Selection, recall_for_error, select
from .wanted import Wanted

MASS_BYTES = 256 << 20
"""Heads are searched in groups whose mass fits in this. Their number does not depend on the batch, so that neither does
what is found for a sample."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a search gives."""

    selection: Selection
    error: Tensor | None
    """Relative L2 error of the output at the recall that was tried, (B, H), where the target is an error."""


def search(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lse: Tensor,
    settings: Wanted,
    always: Tensor,
    *,
    dense: Tensor | None,
    scale: float | None,
    lengths: Tensor | None,
    densities: Sequence[Tensor | None] = (None,),
    mass: Tensor | None = None,
) -> list[Found]:
    """What `settings` asks for of the attention of q (B, H, N, D) to k (B, G, N, D).

    Args:
        lse: the normaliser (B, H, N) that ranks.
        always: bool (R, C), see `select`.
        dense: the dense output, where `lse` is its own; without it no error can be measured.
        lengths: integers (B): keys from there on are padding.
        densities: of every selection, the share of blocks that each head keeps (H), or None for the target of
            `settings`.
        mass: of every block (B, H, R, C), where it is known already.
    """
    query_block, key_block = settings.blocks
    blocks = -(-q.shape[2] // query_block) * -(-k.shape[2] // key_block)
    ratio = q.shape[1] // k.shape[1]
    fitting = max(1, MASS_BYTES // (4 * blocks))
    heads = min(q.shape[1], max(ratio, fitting // ratio * ratio))
    samples = max(1, fitting // heads)
    batches: list[list[Found]] = []
    for first in range(0, q.shape[0], samples):
        rows = slice(first, first + samples)
        groups: list[list[Found]] = []
        for start in range(0, q.shape[1], heads):
            own, shared = slice(start, start + heads), slice(start // ratio, -(-(start + heads) // ratio))
            groups.append(
                _search_group(
                    q[rows, own],
                    k[rows, shared],
                    v[rows, shared],
                    lse[rows, own],
                    settings,
                    always,
                    dense=None if dense is None else dense[rows, own],
                    scale=scale,
                    lengths=None if lengths is None else lengths[rows],
                    densities=[None if density is None else density[own] for density in densities],
                    mass=None if mass is None else mass[rows, own],
                )
            )
        batches.append([_joined(parts, 1) for parts in zip(*groups, strict=True)])
    return [_joined(parts, 0) for parts in zip(*batches, strict=True)]


def attend_and_weigh(
    q: Tensor, k: Tensor, v: Tensor, settings: Wanted, *, scale: float | None, lengths: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The dense output, its normaliser, and the mass of every block where all of it fits in memory at once."""
    query_block, key_block = settings.blocks
    blocks = -(-q.shape[2] // query_block) * -(-k.shape[2] // key_block)
    if 4 * blocks * q.shape[0] * q.shape[1] > MASS_BYTES:
        out, lse = dense_attention(q, k, v, scale=scale, key_lengths=lengths, return_lse=True)
        return out, lse, None
    return searched_attention(q, k, v, query_block=query_block, key_block=key_block, scale=scale, key_lengths=lengths)


def _search_group(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lse: Tensor,
    settings: Wanted,
    always: Tensor,
    *,
    dense: Tensor | None,
    scale: float | None,
    lengths: Tensor | None,
    densities: Sequence[Tensor | None],
    mass: Tensor | None,
) -> list[Found]:
    if mass is None:
        query_block, key_block = settings.blocks
        mass = block_mass(q, k, lse, query_block=query_block, key_block=key_block, scale=scale, key_lengths=lengths)
    return [
        _found_by_target(q, k, v, mass, settings, always, dense=dense, scale=scale, lengths=lengths)
        if density is None
        else Found(select(mass, settings, always, density=density), None)
        for density in densities
    ]


def _found_by_target(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mass: Tensor,
    settings: Wanted,
    always: Tensor,
    *,
    dense: Tensor | None,
    scale: float | None,
    lengths: Tensor | None,
) -> Found:
    found, accepted = select(mass, settings, always), settings.target.value
    if settings.target.name != "error" or dense is None:
        return Found(found, None)
    index = index_of(found.keep, settings, q.shape[2], lengths)
    tried = cast(Tensor, sparse_attention(q, k, v, index, scale=scale, backend=settings.backend))
    wide = widest(dense.device)
    truth = dense.to(wide)
    error = (tried.to(wide) - truth).flatten(2).norm(dim=2) / truth.flatten(2).norm(dim=2).clamp_min(1e-30)
    if bool((error > accepted).any()):
        found = select(mass, settings, always, recall=recall_for_error(found.recall, error, accepted))
    return Found(found, error)


def index_of(keep: Tensor, settings: Wanted, tokens: int, lengths: Tensor | None) -> BlockIndex:
    """The index of kept blocks, bool (B, H, R, C)."""
    return BlockIndex.from_mask(
        keep,
        queries=tokens,
        keys=tokens,
        query_block=settings.blocks[0],
        key_block=settings.blocks[1],
        key_lengths=lengths,
    )


def _joined(parts: Sequence[Found], along: int) -> Found:
    if len(parts) == 1:
        return parts[0]
    selections = [part.selection for part in parts]
    errors = [part.error for part in parts if part.error is not None]
    return Found(
        Selection(
            torch.cat([s.keep for s in selections], along),
            torch.cat([s.recall for s in selections], along),
            torch.cat([s.least_recall for s in selections], along),
        ),
        torch.cat(errors, along) if errors else None,
    )
