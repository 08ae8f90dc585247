"""The grouped product as a Triton kernel, for GPUs; under Triton's interpreter on a CPU, for tests.

One program owns one tile of one expert's rows and a tile of features out. Tiles have one size whatever the number of
rows, so that a row's result is the same bit for bit whichever rows it shares a call with. Which tile belongs to which
expert is worked out on the GPU, which is not waited for.

Shapes: R rows, E experts, I features in, O features out, T tiles of rows.
"""

# Type checkers see a kernel as the Python function it is written as, not as what `triton.jit` makes of it.
# pyright: reportCallIssue=false, reportAssignmentType=false

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..triton_limits import precision, refuses_device, refuses_type, within_the_card

ROWS, COLUMNS = 64, 128
"""Of a tile."""
DEPTH_BYTES = 128
"""Of a row that a tile reads at once: a line of the cache."""
WARPS = {2: 4, 4: 8}
"""By bytes of a number: products that make up float32 from three need more registers."""
STAGES = 3


@triton.jit(do_not_specialize=("tiles",))
def _multiply_kernel(
    rows, weight, out, expert_T, first_T, end_T,
    r_r, r_i, w_e, w_i, w_o, o_r, o_o, tiles, features_in, features_out,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """out[r] = rows[r] weight[expert of r] for a tile of rows and features. Tiles of rows next to each other."""
    tile = tl.program_id(0) % tiles
    first = tl.load(first_T + tile)
    end = tl.load(end_T + tile)
    if first < end:
        # 64 bits wherever a whole tensor is spanned; offsets inside a tile stay in 32.
        expert = tl.load(expert_T + tile).to(tl.int64)
        start = first.to(tl.int64)
        members = tl.arange(0, ROWS)
        columns = tl.program_id(0) // tiles * COLUMNS + tl.arange(0, COLUMNS)
        depths = tl.arange(0, DEPTH)
        inside = (members < end - first)[:, None]
        exists = (columns < features_out)[None, :]
        row_tile = rows + start * r_r + members[:, None] * r_r + depths[None, :] * r_i
        weight_tile = weight + expert * w_e + depths[:, None] * w_i + columns[None, :] * w_o
        acc = tl.zeros([ROWS, COLUMNS], tl.float32)
        for done in range(0, features_in, DEPTH):
            left = depths < features_in - done
            a = tl.load(row_tile, mask=inside & left[None, :], other=0.0)
            b = tl.load(weight_tile, mask=exists & left[:, None], other=0.0)
            acc = tl.dot(a, b, acc, input_precision=PRECISION)
            row_tile += DEPTH * r_i
            weight_tile += DEPTH * w_i
        out_tile = out + start * o_r + members[:, None] * o_r + columns[None, :] * o_o
        tl.store(out_tile, acc.to(out.dtype.element_ty), mask=inside & exists)


INTERPRETED = not isinstance(_multiply_kernel, triton.JITFunction)


def multiply(rows_RI: Tensor, weight_EIO: Tensor, ends_E: Tensor) -> Tensor:
    """(R, O) of the rows' type: every expert's rows times its own matrix."""
    count, features_out = len(rows_RI), weight_EIO.shape[2]
    out_RO = rows_RI.new_empty(count, features_out)
    expert_T, first_T, end_T = tiles_of(ends_E, count)
    with torch.cuda.device_of(rows_RI), within_the_card():
        _multiply_kernel[(len(expert_T) * triton.cdiv(features_out, COLUMNS),)](
            rows_RI, weight_EIO, out_RO, expert_T, first_T, end_T,
            *rows_RI.stride(), *weight_EIO.stride(), *out_RO.stride(),
            len(expert_T), rows_RI.shape[1], features_out,
            ROWS=ROWS, COLUMNS=COLUMNS, DEPTH=DEPTH_BYTES // rows_RI.itemsize,
            PRECISION=precision(rows_RI, interpreted=INTERPRETED), num_warps=WARPS[rows_RI.itemsize],
            num_stages=STAGES,
        )  # fmt: skip
    return out_RO


def tiles_of(ends_E: Tensor, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """(expert, first row, row after its last) of every tile, int32 (T).

    T is what `rows` rows can need at most, since how many they do need is known to the GPU only; tiles that are left
    over have no rows.
    """
    starts_E = torch.cat([ends_E.new_zeros(1), ends_E[:-1]])
    tiles_E = (ends_E - starts_E + ROWS - 1).div(ROWS, rounding_mode="floor")
    last_E = tiles_E.cumsum(0)
    tile_T = torch.arange(rows // ROWS + min(rows, len(ends_E)), device=ends_E.device)
    expert_T = torch.searchsorted(last_E, tile_T, right=True).clamp(max=len(ends_E) - 1)
    first_T = starts_E[expert_T] + (tile_T - (last_E - tiles_E)[expert_T]) * ROWS
    end_T = torch.minimum(first_T + ROWS, ends_E[expert_T])
    return expert_T.to(torch.int32), first_T.to(torch.int32), end_T.to(torch.int32)


def multiply_refuses(x: Tensor, *_others: object) -> str | None:
    """Why `multiply` cannot take rows like `x`, or None."""
    return refuses_type(x) or refuses_device(x, interpreted=INTERPRETED)
