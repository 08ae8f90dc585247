"""Block-sparse attention and block mass as Triton kernels, for GPUs; under Triton's interpreter on a CPU, for tests.

One program owns one block of queries of one head: nothing is added atomically, and results repeat bit for bit. Inside,
logarithms are base 2 (`exp2` is what the hardware has) and a row without keys has a finite -1e30, which never makes a
NaN; at the door they are natural, and -inf.

Shapes: B batch, H query heads, G key heads, J head groups of the index, N queries, M keys, D width, R x C blocks.
"""

# Type checkers see a kernel as the Python function it is written as, not as what `triton.jit` makes of it.
# pyright: reportCallIssue=false, reportAssignmentType=false

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..block_index import BlockIndex
from ..triton_limits import precision, refuses_device, refuses_type, within_the_card
from .dense import dense_attention
from .launch import Card, full_ends, longest_first, plan, refuses_plan

WIDTHS = (32, 64, 96, 128)
BLOCKS = ((16, 16), (32, 32), (64, 64), (128, 64), (128, 128))
"""Queries x keys."""
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
    acc, total, peak, q, k_pointers, v_pointers, v_d, tokens, dims, room, scale,
    MASKED: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr, PIECE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of keys added to the running (output, denominator, largest score) of some queries.

    The output is a tuple of pieces of PIECE dimensions each, every one a product of its own: see `launch.Plan`.
    """
    k = _tile(k_pointers, tokens, dims, room, MASKED, WIDTH != D, D)
    scores = tl.dot(q, tl.trans(k), input_precision=PRECISION)
    if MASKED:
        scores = tl.where((tokens < room)[None, :], scores, -1e30)
    # Scaled inside the exponent, where it is one fused multiply-add, and not as a pass of its own over the scores.
    new_peak = tl.maximum(peak, tl.max(scores, 1) * scale)
    weights = tl.exp2(scores * scale - new_peak[:, None])
    if MASKED:
        weights = tl.where((tokens < room)[None, :], weights, 0.0)
    shrink = tl.exp2(peak - new_peak)
    piece_dims = tl.arange(0, PIECE)
    new_acc = ()
    for p in tl.static_range((D + PIECE - 1) // PIECE):
        pointers = v_pointers + p * PIECE * v_d
        v = _tile(pointers, tokens, piece_dims, room, MASKED, (p + 1) * PIECE > D, D - p * PIECE)
        new_acc += (tl.dot(weights.to(v.dtype), v, acc[p] * shrink[:, None], input_precision=PRECISION),)
    return new_acc, total * shrink + tl.sum(weights, 1), new_peak


@triton.jit(do_not_specialize=("heads", "sharing", "groups", "rows", "queries"))
def _sparse_kernel(
    q, k, v, out, lse, work, indptr, indices, valid_keys,
    q_b, q_h, q_n, q_d, k_b, k_g, k_m, k_d, v_b, v_g, v_m, v_d, o_b, o_h, o_n, o_d,
    heads, sharing, groups, rows, queries, scale,
    QUERY_BLOCK: tl.constexpr, KEY_BLOCK: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr, PIECE: tl.constexpr,
    D: tl.constexpr, WIDTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """ROWS queries of one block of one head against its kept blocks of keys.

    Grid: work items x heads of a group x parts of a block.
    """
    SLICES: tl.constexpr = QUERY_BLOCK // ROWS
    repeats = heads // groups
    part_of_block = tl.program_id(0) % SLICES
    program = tl.program_id(0) // SLICES
    item = tl.load(work + program // repeats)
    row = item % rows
    group = item // rows % groups
    head = group * repeats + program % repeats
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
    members = tl.arange(0, ROWS)
    first = row.to(tl.int64) * QUERY_BLOCK + part_of_block * ROWS
    inside = members < queries - first
    q_pointers = q + b * q_b + h * q_h + first * q_n + members[:, None] * q_n + dims[None, :] * q_d
    query = tl.load(q_pointers, mask=inside[:, None] & (dims < D)[None, :], other=0.0)
    piece_dims = tl.arange(0, PIECE)
    k_tile = k + b * k_b + g * k_g + tokens[:, None] * k_m + dims[None, :] * k_d
    v_tile = v + b * v_b + g * v_g + tokens[:, None] * v_m + piece_dims[None, :] * v_d

    acc = ()
    for _ in tl.static_range((D + PIECE - 1) // PIECE):  # pyright: ignore
        acc += (tl.zeros([ROWS, PIECE], tl.float32),)
    total = tl.zeros([ROWS], tl.float32)
    peak = tl.full([ROWS], -1e30, tl.float32)
    # Columns ascend, so only the last kept block can be cut by the end of the keys: no mask in the long loop. The loop
    # reads every column one turn ahead, so that the pipeline fetches keys without waiting for their address.
    PARTS: tl.constexpr = KEY_BLOCK // TILE
    column = tl.load(indices + start, mask=start < end, other=0)
    for t in range(start * PARTS, (end - 1) * PARTS):
        at = column.to(tl.int64) * KEY_BLOCK + t % PARTS * TILE
        column = tl.load(indices + (t + 1) // PARTS)
        acc, total, peak = _attend(
            acc, total, peak, query, k_tile + at * k_m, v_tile + at * v_m, v_d, tokens, dims, 0, scale,
            False, D, WIDTH, PIECE, PRECISION,
        )  # fmt: skip
    if start < end:
        for part in range(PARTS):
            at = column.to(tl.int64) * KEY_BLOCK + part * TILE
            acc, total, peak = _attend(
                acc, total, peak, query, k_tile + at * k_m, v_tile + at * v_m, v_d, tokens, dims, valid - at, scale,
                True, D, WIDTH, PIECE, PRECISION,
            )  # fmt: skip

    empty = total == 0.0
    divisors = tl.where(empty, 1.0, total)[:, None]
    o_pointers = out + b * o_b + h * o_h + first * o_n + members[:, None] * o_n + piece_dims[None, :] * o_d
    for p in tl.static_range((D + PIECE - 1) // PIECE):
        exists = inside[:, None] & (piece_dims < D - p * PIECE)[None, :]
        tl.store(o_pointers + p * PIECE * o_d, (acc[p] / divisors).to(out.dtype.element_ty), mask=exists)
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
    ROWS: tl.constexpr, KEY_BLOCK: tl.constexpr, TILE: tl.constexpr,
    D: tl.constexpr, WIDTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """ROWS queries of one head, a row of `mass`. Grid: rows of a head beside each other, to share its keys in cache."""
    row = tl.program_id(0) % rows
    head = tl.program_id(0) // rows % heads
    b = (tl.program_id(0) // rows // heads).to(tl.int64)
    h = head.to(tl.int64)
    g = (head // sharing).to(tl.int64)
    valid = tl.load(valid_keys + b)

    dims = tl.arange(0, WIDTH)
    tokens = tl.arange(0, TILE)
    members = tl.arange(0, ROWS)
    first = row.to(tl.int64) * ROWS
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
    width = _padded(q.shape[3])
    chosen = plan(Card.of(q.device), index.query_block, index.key_block, width, q.element_size(), tensors=2)
    assert chosen is not None, "asked for without asking `sparse_refuses`"
    programs = work.numel() * (q.shape[1] // index.groups) * (index.query_block // chosen.rows)
    with torch.cuda.device_of(q), within_the_card():
        _sparse_kernel[(programs,)](
            q, k, v, out, lse, work, index.indptr.contiguous(), index.indices.contiguous(), valid,
            *q.stride(), *k.stride(), *v.stride(), *out.stride(),
            q.shape[1], q.shape[1] // k.shape[1], index.groups, index.rows, index.queries, scale * LOG2_E,
            QUERY_BLOCK=index.query_block, KEY_BLOCK=index.key_block,
            ROWS=chosen.rows, TILE=chosen.tile, PIECE=chosen.piece_of(q.shape[3]),
            D=q.shape[3], WIDTH=width, PRECISION=precision(q, interpreted=INTERPRETED),
            num_warps=chosen.warps, num_stages=chosen.stages,
        )  # fmt: skip
    return out, lse


def mass(
    q: Tensor, k: Tensor, lse: Tensor, *, query_block: int, key_block: int, scale: float, key_lengths: Tensor | None
) -> Tensor:
    """float32 (B, H, R, C)."""
    batch, heads, queries, width = q.shape
    chosen = plan(Card.of(q.device), query_block, key_block, _padded(width), q.element_size(), tensors=1)
    assert chosen is not None, "asked for without asking `mass_refuses`"
    slices = query_block // chosen.rows
    rows, columns = -(-queries // query_block) * slices, -(-k.shape[2] // key_block)
    if key_lengths is None:
        key_lengths = torch.full((batch,), k.shape[2], dtype=torch.int32, device=q.device)
    weights = q.new_zeros((batch, heads, rows, columns), dtype=torch.float32)
    with torch.cuda.device_of(q), within_the_card():
        _mass_kernel[(batch * heads * rows,)](
            q, k, lse, weights, key_lengths.clamp(0, k.shape[2]).to(torch.int32),
            *q.stride(), *k.stride(), *lse.stride(),
            heads, heads // k.shape[1], rows, columns, queries, scale * LOG2_E,
            ROWS=chosen.rows, KEY_BLOCK=key_block, TILE=chosen.tile,
            D=width, WIDTH=_padded(width), PRECISION=precision(q, interpreted=INTERPRETED),
            num_warps=chosen.warps, num_stages=chosen.stages,
        )  # fmt: skip
    return weights if slices == 1 else weights.unflatten(2, (-1, slices)).sum(3)


def sparse_refuses(q: Tensor, k: Tensor, v: Tensor, index: BlockIndex, return_lse: bool) -> str | None:
    """Why `sparse` cannot take these inputs, or None."""
    return _refuses(q, k, v, blocks=(index.query_block, index.key_block), loads=2)


def mass_refuses(q: Tensor, k: Tensor, lse: Tensor, query_block: int, key_block: int) -> str | None:
    """Why `mass` cannot take these inputs, or None."""
    return _refuses(q, k, lse, blocks=(query_block, key_block), loads=1)


def _refuses(*tensors: Tensor, blocks: tuple[int, int], loads: int) -> str | None:
    q = tensors[0]
    if refuses_type(q) is not None:
        return refuses_type(q)
    if q.shape[-1] not in WIDTHS:
        return f"head width {q.shape[-1]}: has {', '.join(map(str, WIDTHS))}"
    if blocks not in BLOCKS:
        known = ", ".join(f"{queries} x {keys}" for queries, keys in BLOCKS)
        return f"blocks of {blocks[0]} x {blocks[1]}: has {known}"
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return "it has no gradients; call it under torch.no_grad()"
    reason = refuses_device(q, interpreted=INTERPRETED)
    if reason is None:
        reason = refuses_plan(Card.of(q.device), *blocks, _padded(q.shape[-1]), q.element_size(), tensors=loads)
    return reason


def _padded(width: int) -> int:
    return 1 << (width - 1).bit_length()
