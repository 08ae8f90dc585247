"""Block-sparse attention and block mass as Triton kernels, for GPUs; under Triton's interpreter on a CPU, for tests.

One program owns one block of queries of one head: nothing is added atomically, and results repeat bit for bit. Inside,
logarithms are base 2 (`exp2` is what the hardware has) and a row without keys has a finite -1e30, which never makes a
NaN; at the door they are natural, and -inf.

Shapes: B batch, H query heads, G key heads, J head groups of the index, N queries, M keys, D width, R x C blocks.
"""

# Type checkers see a kernel as the Python function it is written as, not as what `triton.jit` makes of it.
# pyright: reportCallIssue=false, reportAssignmentType=false

from __future__ import annotations

import functools
import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..block_index import BlockIndex
from ..triton_limits import precision, refuses_device, refuses_type
from .dense import dense_attention
from .launch import full_ends, longest_first, tiling

WIDTHS = (32, 64, 96, 128)
BLOCKS = (16, 32, 64, 128)
INTERPRETED_SHARED_BYTES = 227 << 10
LOG2_E = math.log2(math.e)


@triton.jit
def _tile(pointers, tokens, dims, room, MASKED: tl.constexpr, PADDED: tl.constexpr, D: tl.constexpr):
    """Keys or values of one tile; zeros after `room` tokens where MASKED, and after D dimensions where PADDED."""
    if MASKED and PADDED:
        return tl.load(pointers, mask=(tokens < room)[:, None] & (dims < D)[None, :], other=0.0)
    if MASKED:
        return tl.load(pointers, mask=(tokens < room)[:, None], other=0.0)
    if PADDED:
        return tl.load(pointers, mask=(dims < D)[None, :], other=0.0)
    return tl.load(pointers)


@triton.jit
def _attend(
    acc, total, peak, q, k_pointers, v_pointers, tokens, dims, room, scale,
    MASKED: tl.constexpr, PADDED: tl.constexpr, D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of keys added to the running (output, denominator, largest score) of a block of queries."""
    k = _tile(k_pointers, tokens, dims, room, MASKED, PADDED, D)
    scores = tl.dot(q, tl.trans(k), input_precision=PRECISION)
    if MASKED:
        scores = tl.where((tokens < room)[None, :], scores, -1e30)
    # Scaled inside the exponent, where it is one fused multiply-add, and not as a pass of its own over the scores.
    new_peak = tl.maximum(peak, tl.max(scores, 1) * scale)
    weights = tl.exp2(scores * scale - new_peak[:, None])
    if MASKED:
        weights = tl.where((tokens < room)[None, :], weights, 0.0)
    shrink = tl.exp2(peak - new_peak)
    v = _tile(v_pointers, tokens, dims, room, MASKED, PADDED, D)
    acc = tl.dot(weights.to(v.dtype), v, acc * shrink[:, None], input_precision=PRECISION)
    return acc, total * shrink + tl.sum(weights, 1), new_peak


@triton.jit(do_not_specialize=("heads", "sharing", "groups", "rows", "queries"))
def _sparse_kernel(
    q, k, v, out, lse, work, indptr, indices, valid_keys,
    q_b, q_h, q_n, q_d, k_b, k_g, k_m, k_d, v_b, v_g, v_m, v_d, o_b, o_h, o_n, o_d,
    heads, sharing, groups, rows, queries, scale,
    QUERY_BLOCK: tl.constexpr, KEY_BLOCK: tl.constexpr, TILE: tl.constexpr,
    D: tl.constexpr, WIDTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One block of queries of one head against its kept blocks of keys. Grid: work items x heads of a group."""
    repeats = heads // groups
    item = tl.load(work + tl.program_id(0) // repeats)
    row = item % rows
    group = item // rows % groups
    head = group * repeats + tl.program_id(0) % repeats
    # 64 bits wherever a whole tensor is spanned; offsets inside a tile stay in 32.
    b = (item // rows // groups).to(tl.int64)
    h = head.to(tl.int64)
    g = (head // sharing).to(tl.int64)
    pointer = indptr + (b * groups + group) * (rows + 1) + row
    start = tl.load(pointer)
    end = tl.load(pointer + 1)
    valid = tl.load(valid_keys + b)

    dims = tl.arange(0, WIDTH)
    tokens = tl.arange(0, TILE)
    members = tl.arange(0, QUERY_BLOCK)
    first = row.to(tl.int64) * QUERY_BLOCK
    inside = members < queries - first
    PADDED: tl.constexpr = WIDTH != D
    q_pointers = q + b * q_b + h * q_h + first * q_n + members[:, None] * q_n + dims[None, :] * q_d
    query = tl.load(q_pointers, mask=inside[:, None] & (dims < D)[None, :], other=0.0)
    k_tile = k + b * k_b + g * k_g + tokens[:, None] * k_m + dims[None, :] * k_d
    v_tile = v + b * v_b + g * v_g + tokens[:, None] * v_m + dims[None, :] * v_d

    acc = tl.zeros([QUERY_BLOCK, WIDTH], tl.float32)
    total = tl.zeros([QUERY_BLOCK], tl.float32)
    peak = tl.full([QUERY_BLOCK], -1e30, tl.float32)
    # Columns ascend, so only the last kept block can be cut by the end of the keys: no mask in the long loop. The loop
    # reads every column one turn ahead, so that the pipeline fetches keys without waiting for their address.
    PARTS: tl.constexpr = KEY_BLOCK // TILE
    column = tl.load(indices + start, mask=start < end, other=0)
    for t in range(start * PARTS, (end - 1) * PARTS):
        at = column.to(tl.int64) * KEY_BLOCK + t % PARTS * TILE
        column = tl.load(indices + (t + 1) // PARTS)
        acc, total, peak = _attend(
            acc, total, peak, query, k_tile + at * k_m, v_tile + at * v_m, tokens, dims, 0, scale,
            False, PADDED, D, PRECISION,
        )  # fmt: skip
    if start < end:
        for part in range(PARTS):
            at = column.to(tl.int64) * KEY_BLOCK + part * TILE
            acc, total, peak = _attend(
                acc, total, peak, query, k_tile + at * k_m, v_tile + at * v_m, tokens, dims, valid - at, scale,
                True, PADDED, D, PRECISION,
            )  # fmt: skip

    empty = total == 0.0
    acc = acc / tl.where(empty, 1.0, total)[:, None]
    o_pointers = out + b * o_b + h * o_h + first * o_n + members[:, None] * o_n + dims[None, :] * o_d
    tl.store(o_pointers, acc.to(out.dtype.element_ty), mask=inside[:, None] & (dims < D)[None, :])
    LN_2: tl.constexpr = 0.6931471805599453
    logs = tl.where(empty, float("-inf"), (peak + tl.log2(tl.where(empty, 1.0, total))) * LN_2)
    tl.store(lse + (b * heads + h) * queries + first + members, logs, mask=inside)


@triton.jit
def _weight(
    q, k_pointers, tokens, dims, room, logs, scale,
    MASKED: tl.constexpr, PADDED: tl.constexpr, D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The sum of exp2(scores - logs) over one tile."""
    k = _tile(k_pointers, tokens, dims, room, MASKED, PADDED, D)
    weights = tl.exp2(tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale - logs[:, None])
    if MASKED:
        weights = tl.where((tokens < room)[None, :], weights, 0.0)
    return tl.sum(weights)


@triton.jit(do_not_specialize=("heads", "sharing", "rows", "columns", "queries"))
def _mass_kernel(
    q, k, lse, mass, valid_keys,
    q_b, q_h, q_n, q_d, k_b, k_g, k_m, k_d, l_b, l_h, l_n,
    heads, sharing, rows, columns, queries, scale,
    QUERY_BLOCK: tl.constexpr, KEY_BLOCK: tl.constexpr, TILE: tl.constexpr,
    D: tl.constexpr, WIDTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One row of blocks of one head. Grid: rows of a head next to each other, so that they share its keys in cache."""
    row = tl.program_id(0) % rows
    head = tl.program_id(0) // rows % heads
    b = (tl.program_id(0) // rows // heads).to(tl.int64)
    h = head.to(tl.int64)
    g = (head // sharing).to(tl.int64)
    valid = tl.load(valid_keys + b)

    dims = tl.arange(0, WIDTH)
    tokens = tl.arange(0, TILE)
    members = tl.arange(0, QUERY_BLOCK)
    first = row.to(tl.int64) * QUERY_BLOCK
    inside = members < queries - first
    PADDED: tl.constexpr = WIDTH != D
    q_pointers = q + b * q_b + h * q_h + first * q_n + members[:, None] * q_n + dims[None, :] * q_d
    query = tl.load(q_pointers, mask=inside[:, None] & (dims < D)[None, :], other=0.0)
    LOG2_E: tl.constexpr = 1.4426950408889634
    logs = tl.load(lse + b * l_b + h * l_h + (first + members) * l_n, mask=inside, other=float("inf")) * LOG2_E
    # A query that attends to nothing (LSE -inf), or that does not exist, has mass nowhere.
    logs = tl.where(logs == float("-inf"), float("inf"), logs)
    k_tile = k + b * k_b + g * k_g + tokens[:, None] * k_m + dims[None, :] * k_d
    target = mass + ((b * heads + h) * rows + row) * columns
    step = tl.full([], TILE, tl.int64)

    PARTS: tl.constexpr = KEY_BLOCK // TILE
    whole = valid // KEY_BLOCK * PARTS
    block = tl.zeros([], tl.float32)
    for t in range(whole):
        weight = _weight(query, k_tile + t * step * k_m, tokens, dims, 0, logs, scale, False, PADDED, D, PRECISION)
        block = tl.where(t % PARTS == 0, weight, block + weight)
        tl.store(target + t // PARTS, block)
    for t in range(whole, tl.cdiv(valid, TILE)):
        room = valid - t * TILE
        weight = _weight(query, k_tile + t * step * k_m, tokens, dims, room, logs, scale, True, PADDED, D, PRECISION)
        block = tl.where(t % PARTS == 0, weight, block + weight)
        tl.store(target + t // PARTS, block)


INTERPRETED = not isinstance(_sparse_kernel, triton.JITFunction)


def sparse(
    q: Tensor, k: Tensor, v: Tensor, index: BlockIndex, *, scale: float, return_lse: bool, dense_ends: bool = True
) -> tuple[Tensor, Tensor]:
    """Output (B, H, N, D) of q's type and LSE float32 (B, H, N).

    Args:
        dense_ends: give rows at the beginning and at the end that keep every block for every head (text queries) to
            `dense_attention`, whose kernels are faster a block.
    """
    out, lse = torch.empty_like(q), q.new_empty(q.shape[:3], dtype=torch.float32)
    lead, trail = index.derived("full ends", lambda: full_ends(index)) if dense_ends else (0, 0)
    for tokens in (slice(lead * index.query_block), slice((index.rows - trail) * index.query_block, None)):
        if q[:, :, tokens].shape[2]:
            lengths = index.key_lengths
            done = dense_attention(q[:, :, tokens], k, v, scale=scale, key_lengths=lengths, return_lse=True)
            out[:, :, tokens], lse[:, :, tokens] = done
    work = index.derived(("work", lead, trail), lambda: longest_first(index, lead, trail))
    valid = index.derived("valid", lambda: index.valid_keys().clamp(0, index.keys).to(torch.int32))
    if scale < 0:  # the kernel takes the largest score before it scales
        q, scale = -q, -scale
    tile, stages, warps = tiling(
        index.query_block, index.key_block, _padded(q.shape[3]), q.element_size(), _shared_bytes(q.device), tensors=2
    )
    with torch.cuda.device_of(q):
        _sparse_kernel[(work.numel() * (q.shape[1] // index.groups),)](
            q, k, v, out, lse, work, index.indptr.contiguous(), index.indices.contiguous(), valid,
            *q.stride(), *k.stride(), *v.stride(), *out.stride(),
            q.shape[1], q.shape[1] // k.shape[1], index.groups, index.rows, index.queries, scale * LOG2_E,
            QUERY_BLOCK=index.query_block, KEY_BLOCK=index.key_block, TILE=tile,
            D=q.shape[3], WIDTH=_padded(q.shape[3]), PRECISION=precision(q, interpreted=INTERPRETED),
            num_warps=warps, num_stages=stages,
        )  # fmt: skip
    return out, lse


def mass(
    q: Tensor, k: Tensor, lse: Tensor, *, query_block: int, key_block: int, scale: float, key_lengths: Tensor | None
) -> Tensor:
    """float32 (B, H, R, C)."""
    batch, heads, queries, width = q.shape
    rows, columns = -(-queries // query_block), -(-k.shape[2] // key_block)
    if key_lengths is None:
        key_lengths = torch.full((batch,), k.shape[2], dtype=torch.int32, device=q.device)
    weights = q.new_zeros((batch, heads, rows, columns), dtype=torch.float32)
    tile, stages, warps = tiling(
        query_block, key_block, _padded(width), q.element_size(), _shared_bytes(q.device), tensors=1
    )
    with torch.cuda.device_of(q):
        _mass_kernel[(batch * heads * rows,)](
            q, k, lse, weights, key_lengths.clamp(0, k.shape[2]).to(torch.int32),
            *q.stride(), *k.stride(), *lse.stride(),
            heads, heads // k.shape[1], rows, columns, queries, scale * LOG2_E,
            QUERY_BLOCK=query_block, KEY_BLOCK=key_block, TILE=tile,
            D=width, WIDTH=_padded(width), PRECISION=precision(q, interpreted=INTERPRETED),
            num_warps=warps, num_stages=stages,
        )  # fmt: skip
    return weights


def sparse_refuses(q: Tensor, k: Tensor, v: Tensor, index: BlockIndex, return_lse: bool) -> str | None:
    """Why `sparse` cannot take these inputs, or None."""
    return _refuses(q, k, v, blocks=(index.query_block, index.key_block))


def mass_refuses(q: Tensor, k: Tensor, lse: Tensor, query_block: int, key_block: int) -> str | None:
    """Why `mass` cannot take these inputs, or None."""
    return _refuses(q, k, lse, blocks=(query_block, key_block))


def _refuses(*tensors: Tensor, blocks: tuple[int, int]) -> str | None:
    q = tensors[0]
    if refuses_type(q) is not None:
        return refuses_type(q)
    if q.shape[-1] not in WIDTHS:
        return f"head width {q.shape[-1]}: has {', '.join(map(str, WIDTHS))}"
    if not set(blocks) <= set(BLOCKS):
        return f"blocks of {blocks[0]} x {blocks[1]}: has {', '.join(map(str, BLOCKS))} on either side"
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return "it has no gradients; call it under torch.no_grad()"
    return refuses_device(q, interpreted=INTERPRETED)


def _padded(width: int) -> int:
    return 1 << (width - 1).bit_length()


@functools.cache
def _shared_bytes(device: torch.device) -> int:
    if device.type == "cpu":
        return INTERPRETED_SHARED_BYTES
    return torch.cuda.get_device_properties(device).shared_memory_per_block_optin
