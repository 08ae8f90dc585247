"""Block-sparse attention by torch's FlexAttention: where there is a GPU and our kernels do not fit, or by name.

Shapes: B batch, H query heads, G key heads, N queries, M keys, D width.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from ..block_index import BlockIndex

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
SIGNATURES = 64
"""Combinations of shape, type and block size that are compiled before it is called a mistake."""


def sparse(
    q: Tensor, k: Tensor, v: Tensor, index: BlockIndex, *, scale: float, return_lse: bool
) -> tuple[Tensor, Tensor | None]:
    """Output (B, H, N, D) of q's type, and LSE float32 (B, H, N) where it is asked for.

    The first call of every combination of shapes compiles: 20 seconds and more on a CPU.
    """
    options: dict[str, Any] = {"scale": scale, "enable_gqa": q.shape[1] != k.shape[1]}
    if q.device.type == "cuda":
        most = (64, 32) if q.dtype == torch.float32 else (128, 64)
        options["kernel_options"] = {
            "BLOCK_M": min(_power_of_two_in(index.query_block), most[0]),
            "BLOCK_N": min(_power_of_two_in(index.key_block), most[1]),
            "FORCE_USE_FLEX_ATTENTION": True,  # the decoding kernel for few queries has tiles of its own
        }
    if return_lse:
        from torch.nn.attention.flex_attention import AuxRequest

        options["return_aux"] = AuxRequest(lse=True)
    # Not kept with the index: padded to the longest row that exists, it is several times as large.
    mask = index.flex_mask(q.shape[1])
    # Uncompiled, FlexAttention ignores which blocks are kept, and that is what torch falls back to, with no more than a
    # logged warning, after 8 combinations of shapes. `fullgraph` makes it an error, a higher limit makes it rare.
    with torch._dynamo.config.patch(recompile_limit=SIGNATURES):
        done = _compiled()(q, k, v, block_mask=mask, **options)
    return (done[0], done[1].lse) if return_lse else (done, None)


def sparse_refuses(q: Tensor, k: Tensor, v: Tensor, index: BlockIndex, return_lse: bool) -> str | None:
    """Why `sparse` cannot take these inputs, or None."""
    if q.device.type not in ("cpu", "cuda"):
        return f"it runs on CPU and CUDA devices, not on {q.device.type}"
    if q.dtype not in DTYPES:
        return f"{q.dtype}: has float32, float16, bfloat16"
    if q.device.type == "cpu":
        if return_lse:
            return "on a CPU it gives no LSE"
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (q, k, v)):
            return "on a CPU it has no gradients; call it under torch.no_grad()"
        return None
    if find_spec("triton") is None:
        return "on a GPU it needs Triton: pip install 'outpace[triton]' (Linux)"
    if q.shape[-1] < 16:
        return f"head width {q.shape[-1]}: needs 16 or more"
    if min(_power_of_two_in(index.query_block), _power_of_two_in(index.key_block)) < 16:
        return f"blocks of {index.query_block} x {index.key_block}: needs multiples of 16 on either side"
    return None


@functools.cache
def _compiled() -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, fullgraph=True, dynamic=False)


def _power_of_two_in(size: int) -> int:
    return size & -size
