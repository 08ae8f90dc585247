"""Dense attention that also gives its log-sum-exp, by whatever does it fastest here.

Shapes: B batch, H query heads, G key heads, N queries, M keys, D width. LSE is a natural logarithm, float32, (B, H, N).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib import import_module

import torch
import torch.nn.functional as F
from torch import Tensor

from ..block_index import check_key_lengths
from ..dispatch import OPERATIONS, Backend, Operation, not_installed
from .inputs import check_attention, scale_or_default
from .reference import reference_dense

Attended = tuple[Tensor, Tensor | None]
HALVES = (torch.float16, torch.bfloat16)
CHUNK_BYTES = 4 << 20


def dense_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float | None = None,
    key_lengths: Tensor | None = None,
    return_lse: bool = False,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """softmax(q k^T scale) v over all keys, or over the first `key_lengths[b]` of each batch row.

    Shapes: q (B, H, N, D), k and v (B, G, M, D), H a multiple of G, any strides -> (B, H, N, D) of q's type.

    Args:
        scale: of the scores; 1 / sqrt(D) where None.
        key_lengths: integers (B): keys from there on are padding. A batch row without a valid key gives 0 and -inf.
        return_lse: give (output, LSE): the log of every query's softmax denominator.
        backend: "auto", or a name in `DENSE.names()`.

    Raises: ConfigError, UnknownNameError, MissingDependencyError: see `Operation.choose`.
    """
    check_attention(q, k, v)
    check_key_lengths(key_lengths, q.shape[0], q.device)
    scale = scale_or_default(scale, q.shape[-1])
    run = DENSE.choose(q, k, v, return_lse, backend=backend).run
    lengths = [k.shape[2]] if key_lengths is None else key_lengths.clamp(0, k.shape[2]).tolist()
    if len(set(lengths)) == 1:
        out, lse = _over(run, q, k, v, lengths[0], scale, return_lse)
    else:  # a slice a batch row instead of a mask: masks keep the fast kernels away
        parts = [
            _over(run, q[b : b + 1], k[b : b + 1], v[b : b + 1], length, scale, return_lse)
            for b, length in enumerate(lengths)
        ]
        out = torch.cat([part for part, _ in parts])
        lse = torch.cat([part for _, part in parts if part is not None]) if return_lse else None
    return out if lse is None else (out, lse)


def _over(
    run: Callable[..., Attended], q: Tensor, k: Tensor, v: Tensor, length: int, scale: float, return_lse: bool
) -> Attended:
    if length == 0:
        return torch.zeros_like(q), q.new_full(q.shape[:3], -torch.inf, dtype=torch.float32) if return_lse else None
    out, lse = run(q, k[:, :, :length], v[:, :, :length], scale=scale, return_lse=return_lse)
    return out, lse.float() if return_lse and lse is not None else None


def _sdpa(q: Tensor, k: Tensor, v: Tensor, *, scale: float, return_lse: bool) -> Attended:
    return F.scaled_dot_product_attention(q, k, v, scale=scale, enable_gqa=q.shape[1] != k.shape[1]), None


def _sdpa_refuses(q: Tensor, k: Tensor, v: Tensor, return_lse: bool) -> str | None:
    return "it does not give the LSE" if return_lse else None


def _cpu(q: Tensor, k: Tensor, v: Tensor, *, scale: float, return_lse: bool) -> Attended:
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, False, scale=scale)
    return out, lse.contiguous()


def _cpu_refuses(q: Tensor, k: Tensor, v: Tensor, return_lse: bool) -> str | None:
    return None if q.device.type == "cpu" else f"it runs on the CPU, not on {q.device.type}"


def _flash(q: Tensor, k: Tensor, v: Tensor, *, scale: float, return_lse: bool) -> Attended:
    k, v = _repeated(q, k, v)
    out = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, 0.0, False, False, scale=scale)
    return out[0], out[1].contiguous()


def _cudnn(q: Tensor, k: Tensor, v: Tensor, *, scale: float, return_lse: bool) -> Attended:
    k, v = _repeated(q, k, v)
    op = torch.ops.aten._scaled_dot_product_cudnn_attention
    out = op(q, k, v, None, True, 0.0, False, False, scale=scale)
    return out[0], out[1].reshape(q.shape[:3]).contiguous()


def _efficient(q: Tensor, k: Tensor, v: Tensor, *, scale: float, return_lse: bool) -> Attended:
    k, v = _repeated(q, k, v)
    out = torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, None, True, 0.0, False, scale=scale)
    return out[0], out[1][:, :, : q.shape[2]].contiguous()  # rounded up to a multiple of 32 queries


def _xformers(q: Tensor, k: Tensor, v: Tensor, *, scale: float, return_lse: bool) -> Attended:
    fmha = import_module("xformers.ops.fmha")
    q, k, v = (x.transpose(1, 2) for x in (q, *_repeated(q, k, v)))
    if not return_lse:
        return fmha.memory_efficient_attention_forward(q, k, v, scale=scale).transpose(1, 2), None
    out, lse = fmha.memory_efficient_attention_forward_requires_grad(q, k, v, scale=scale)
    return out.transpose(1, 2), lse[:, :, : q.shape[1]].contiguous()


def _flash_attn(q: Tensor, k: Tensor, v: Tensor, *, scale: float, return_lse: bool) -> Attended:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    op = import_module("flash_attn").flash_attn_func
    if not return_lse:
        return op(q, k, v, softmax_scale=scale).transpose(1, 2), None
    out, lse, _ = op(q, k, v, softmax_scale=scale, return_attn_probs=True)
    return out.transpose(1, 2), lse.contiguous()


def _chunked(q: Tensor, k: Tensor, v: Tensor, *, scale: float, return_lse: bool) -> Attended:
    """Plain torch, a few queries at a time, so that their scores stay within some megabytes."""
    wide = torch.promote_types(q.dtype, torch.float32)
    keys, values = (x.to(wide) for x in _repeated(q, k, v))
    chunk = max(1, CHUNK_BYTES // (wide.itemsize * keys.shape[2] * q.shape[0] * q.shape[1]))
    outs, lses = [], []
    for part in q.split(chunk, dim=2):
        scores = torch.matmul(part.to(wide) * scale, keys.mT)
        lse = scores.logsumexp(-1)
        outs.append(torch.matmul(scores.sub_(lse[..., None]).exp_(), values).to(q.dtype))
        lses.append(lse.float())
    return torch.cat(outs, 2), torch.cat(lses, 2)


def _reference(q: Tensor, k: Tensor, v: Tensor, *, scale: float, return_lse: bool) -> Attended:
    out, lse = reference_dense(q, k, v, scale=scale)
    return out.to(q.dtype), lse.float()


def _repeated(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    repeats = q.shape[1] // k.shape[1]
    return (k, v) if repeats == 1 else (k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1))


def _on_gpu(*, dtypes: tuple[torch.dtype, ...], widths: Callable[[int], bool], least: tuple[int, int] = (0, 0)):
    """A `refuses` for kernels of NVIDIA and AMD cards that take these types and widths."""

    def refuses(q: Tensor, k: Tensor, v: Tensor, return_lse: bool) -> str | None:
        if q.device.type != "cuda":
            return f"it runs on CUDA devices, not on {q.device.type}"
        if q.dtype not in dtypes:
            return f"it does not take {q.dtype}"
        if not widths(q.shape[-1]):
            return f"it does not take heads of width {q.shape[-1]}"
        if torch.cuda.get_device_capability(q.device) < least:
            return f"it needs a card of compute capability {least[0]}.{least[1]}"
        return None

    return refuses


def _absent(operator: str) -> Callable[[], str | None]:
    """A `missing` for a private operator of torch: they come and go."""

    @functools.cache
    def missing() -> str | None:
        return None if hasattr(torch.ops.aten, operator) else f"torch {torch.__version__} has no {operator}"

    return missing


def _multiple_of_8(width: int) -> bool:
    return width % 8 == 0 and width <= 256


DENSE = OPERATIONS.add(
    "dense attention",
    Operation(
        name="dense attention",
        backends=[
            Backend(name="sdpa", run=_sdpa, refuses=_sdpa_refuses),
            Backend(
                name="aten-cpu",
                run=_cpu,
                missing=_absent("_scaled_dot_product_flash_attention_for_cpu"),
                refuses=_cpu_refuses,
            ),
            Backend(
                name="flash-attn",
                run=_flash_attn,
                missing=not_installed("flash_attn", "pip install flash-attn, on a machine with CUDA"),
                refuses=_on_gpu(dtypes=HALVES, widths=_multiple_of_8, least=(8, 0)),
            ),
            Backend(
                name="aten-cudnn",
                run=_cudnn,
                missing=_absent("_scaled_dot_product_cudnn_attention"),
                refuses=_on_gpu(dtypes=HALVES, widths=lambda d: d % 8 == 0 and d <= 128, least=(9, 0)),
            ),
            Backend(
                name="aten-flash",
                run=_flash,
                missing=_absent("_scaled_dot_product_flash_attention"),
                refuses=_on_gpu(dtypes=HALVES, widths=_multiple_of_8, least=(8, 0)),
            ),
            Backend(
                name="aten-efficient",
                run=_efficient,
                missing=_absent("_scaled_dot_product_efficient_attention"),
                refuses=_on_gpu(dtypes=(torch.float32, *HALVES), widths=lambda d: d % 8 == 0),
            ),
            Backend(
                name="xformers",
                run=_xformers,
                missing=not_installed("xformers", "pip install 'outpace[xformers]', on a machine with CUDA"),
                refuses=_on_gpu(dtypes=(torch.float32, *HALVES), widths=lambda d: d % 8 == 0),
            ),
            Backend(name="chunked", run=_chunked),
            Backend(name="reference", run=_reference, hesitates=lambda *_: "it is dense, in float64, for tests"),
        ],
    ),
)
