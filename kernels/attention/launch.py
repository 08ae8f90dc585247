"""How attention kernels meet a GPU: what one program takes at a time, what that needs of the card, and in which order.

Every figure here is held to what Triton's compiler makes of the kernels, for every generation, type, width and block:
`tests/kernels/test_compiled_kernels.py`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..block_index import BlockIndex

HOPPER = 90
"""Compute capability from which a group of four warps multiplies straight out of shared memory."""
RESERVED_BYTES = 1 << 10
"""Of shared memory, by the driver for every program; barriers of the pipeline fit in as much again."""
INTERPRETED_SHARED_BYTES = 227 << 10
AMD_SHARED_BYTES = 64 << 10
AMD = 0
"""In place of a compute capability."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """What matters of a GPU."""

    capability: int
    """90 for 9.0; AMD for cards of AMD."""
    shared_bytes: int
    """What one program may take of a multiprocessor's shared memory."""

    @classmethod
    @functools.cache
    def of(cls, device: torch.device) -> Card:
        """That of `device`; a CPU, where Triton's interpreter runs, has what a Hopper card has."""
        if device.type == "cpu":
            return cls(capability=HOPPER, shared_bytes=INTERPRETED_SHARED_BYTES)
        found = torch.cuda.get_device_properties(device)
        if torch.version.hip:
            return cls(capability=AMD, shared_bytes=AMD_SHARED_BYTES)
        return cls(capability=10 * found.major + found.minor, shared_bytes=found.shared_memory_per_block_optin)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How a kernel is launched.

    A warp that owns whole rows of scores sums them up by itself; warps that share rows meet in shared memory for every
    tile. Triton gives rows to warps where no product has more columns than rows, so the product with the values is cut
    into pieces that do not.
    """

    rows: int
    """Queries of a program: a block of them, or a part."""
    tile: int
    """Keys read at once."""
    piece: int
    """Dimensions of the output that one product makes."""
    stages: int
    """Of the pipeline: tiles held at once, of which one is used while the others are on their way."""
    warps: int

    def piece_of(self, head: int) -> int:
        """`piece` for heads of this width: such that none of the output is padding, where that is in pieces of 32."""
        return self.piece if head % self.piece == 0 else min(self.piece, 32)

    def shared_bytes(self, card: Card, width: int, item_bytes: int, tensors: int) -> int:
        """Shared memory of one program, at most.

        Args:
            width: of a head, padded to a power of two.
            item_bytes: of one number.
            tensors: tiles loaded for every block: 2 for keys and values, 1 for keys.
        """
        direct = self.rows >= 64 and card.capability >= HOPPER
        tiles = (self.stages if direct else max(1, self.stages - 1)) * tensors
        # Numbers of 32 bits are split in two for the tensor cores: queries once, for all their keys.
        queries = self.rows * (2 if item_bytes == 4 else 1)
        return (queries + tiles * self.tile) * width * item_bytes + RESERVED_BYTES


def plan(card: Card, query_block: int, key_block: int, width: int, item_bytes: int, *, tensors: int) -> Plan | None:
    """The launch of a kernel over blocks of this size; None where no pipeline fits the card.

    A program leaves room for a second one on the same multiprocessor, whose softmax then runs under its products: 128
    queries with 32 keys at once do. In 32 bits a program takes 32 queries: registers hold no more.
    """
    whole = 128 if key_block <= 64 else 64
    rows = min(query_block, 32 if item_bytes == 4 else whole)
    if item_bytes == 4 or rows == 16:
        tile = 16
    elif rows == 64:
        tile = 64 if card.capability >= HOPPER or tensors == 1 or width == 32 else 32
    else:
        tile = 64 if rows == 128 and tensors == 1 else 32
    wanted = Plan(
        rows=rows,
        tile=min(tile, key_block),
        piece=min(width, max(rows, 16) if rows < 64 else 64),
        stages=2 if item_bytes == 4 else 3,
        warps=min(4, rows // 16),
    )
    for beside, least in ((2, 2), (1, 1)):
        for stages in range(wanted.stages, least - 1, -1):
            found = replace(wanted, stages=stages)
            room = card.shared_bytes + (beside - 1) * RESERVED_BYTES
            if beside * found.shared_bytes(card, width, item_bytes, tensors) <= room:
                return found
    return None


def refuses_plan(
    card: Card, query_block: int, key_block: int, width: int, item_bytes: int, *, tensors: int
) -> str | None:
    """Why the kernels cannot run with these blocks on `card`, or None."""
    too_wide = item_bytes == 4 and query_block < 32 and width > 64 and tensors == 2
    if too_wide:
        return "blocks of 16 queries in float32 at this head width: registers hold heads of up to 64"
    if plan(card, query_block, key_block, width, item_bytes, tensors=tensors) is None:
        return (
            f"blocks of {query_block} x {key_block} at this head width: they do not fit in the "
            f"{card.shared_bytes >> 10} KiB of shared memory that a program may take on this card"
        )
    return None


def full_ends(index: BlockIndex) -> tuple[int, int]:
    """Rows at the beginning and at the end that keep every valid block for every head; (0, 0) where all rows do."""
    most = -(-index.valid_keys() // index.key_block)
    full = (index.counts == most[:, None, None]).all(1).all(0).tolist()
    if all(full):
        return 0, 0
    return full.index(False), full[::-1].index(False)


def longest_first(index: BlockIndex, lead: int, trail: int) -> Tensor:
    """int32: flat (batch, group, row) of the rows between the ends, longest first, so that no long one is left over.

    Sorted by half octaves of their length only: within one, rows of a head stay together and share its keys in cache.
    """
    middle = slice(lead, index.rows - trail)
    flat = torch.arange(index.batch * index.groups * index.rows, dtype=torch.int32, device=index.device)
    items = flat.view(index.batch, index.groups, index.rows)[..., middle].flatten()
    half_octaves = (index.counts[..., middle].flatten().float().log2() * 2).floor()
    return items[half_octaves.argsort(descending=True, stable=True)]
