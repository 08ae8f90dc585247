"""How attention kernels meet a GPU: tiles that fit its shared memory, and which rows they work on, in which order."""

from __future__ import annotations

import torch
from torch import Tensor

from ..block_index import BlockIndex


def tiling(
    query_block: int, key_block: int, width: int, item_bytes: int, shared_bytes: int, *, tensors: int
) -> tuple[int, int, int]:
    """(keys a tile, pipeline stages, warps) that fit a GPU whose blocks of threads share `shared_bytes`.

    Three stages keep two tiles on their way while one is used; a tile is the whole block of keys where three of them
    fit, else a part of it. Blocks of 64 queries and fewer leave room for a second program on the same multiprocessor,
    whose softmax then runs under the first one's products; 128 queries are two groups of four warps that do this for
    each other.

    Args:
        width: of a head, padded to a power of two.
        item_bytes: of one number.
        tensors: tiles loaded for every block: 2 for keys and values, 1 for keys.
    """
    warps = 8 if query_block >= 128 else 4
    tiles = [tile for tile in (128, 64, 32, 16) if tile == key_block or 32 <= tile < key_block]
    for stages in (3, 2):
        # Numbers of 32 bits are split for the tensor cores on their way, which holds one more tile.
        held = stages + (item_bytes == 4)
        for programs in (2, 1) if query_block <= 64 else (1,):
            for tile in tiles:
                needed = (query_block + held * tensors * tile) * width * item_bytes
                if needed + 1024 <= shared_bytes // programs:
                    return tile, stages, warps
    return tiles[-1], 1, warps


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
