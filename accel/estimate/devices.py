"""How fast devices are at the three kinds of work that matter here, with where each figure comes from."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ...errors import InputError, UnknownNameError
from ...registry import Registry, suggestion

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """Rates in TFLOP/s that long sequences reach in practice, not peaks."""

    name: str
    dense: float
    """Dense attention, the fastest kernel in common use."""
    gemm: float
    """Matrix products."""
    sparse: float
    """Block-sparse attention, on the blocks that it computes."""
    mass: float
    """The search's pass over queries and keys, which is half of attention's operations."""
    memory_bytes: float | None
    weight_bytes: int = 2
    """Bytes a weight is held in."""
    source: str

    @property
    def kernel_ratio(self) -> float:
        """Speed of the sparse kernel on what it computes over that of the dense one."""
        return self.sparse / self.dense


DEVICES: Registry[Device] = Registry("device")
MEASURED = ("auto", "this", "cpu")
"""Words for this machine, beside the names of DEVICES."""

_SLOWER = ("pcie", "nvl", "laptop", "mig")
"""Cards of the same name with other rates."""

_HOPPER = (
    "dense: FlashAttention-3 reaches 620-648 TFLOP/s on an H100 SXM at 16k tokens, width 128 (Shah et al. 2024, arXiv "
    "2407.08608); sparse: assumed 400, what dense Triton attention reaches there (395), not timed; products 650 and "
    "search 450: assumed, 82 % and 57 % of the most that one H200 was seen to do (790); an H200 computes as an H100"
)
DEVICES.add("h200", Device(name="h200", dense=620, gemm=650, sparse=400, mass=450, memory_bytes=141e9, source=_HOPPER))
DEVICES.add("h100", Device(name="h100", dense=620, gemm=650, sparse=400, mass=450, memory_bytes=80e9, source=_HOPPER))
DEVICES.add(
    "a100",
    Device(
        name="a100",
        dense=200,
        gemm=250,
        sparse=140,
        mass=145,
        memory_bytes=80e9,
        source="scaled, not measured: peak 312; FlashAttention-2 gets 50-73 % of it and products 80 % (Dao 2023, arXiv "
        "2307.08691); sparse 0.7 of dense, which AdaSpa's end-to-end times on an A100 imply (arXiv 2502.21079)",
    ),
)
DEVICES.add(
    "l40s",
    Device(
        name="l40s",
        dense=215,
        gemm=250,
        sparse=150,
        mass=155,
        memory_bytes=48e9,
        source="scaled, not measured: 60 % and 70 % of the datasheet's peak 362; sparse 0.7 of dense as on an A100",
    ),
)
DEVICES.add(
    "rtx4090",
    Device(
        name="rtx4090",
        dense=145,
        gemm=140,
        sparse=100,
        mass=105,
        memory_bytes=24e9,
        source="scaled, not measured: 85-88 % of the peak 165 with float32 sums; sparse 0.7 of dense as on an A100",
    ),
)


def find_device(name: str) -> Device:
    """The rates of `name`: one of DEVICES, or this machine ("auto", "this", "cpu"), which is measured in two seconds.

    "auto" is this machine's GPU where it has one, and else an H100. Spelling is forgiven ("NVIDIA H200", "RTX 4090").

    Raises: UnknownNameError with what there is.
    """
    import torch

    if name == "cpu":
        return measure(torch.device("cpu"))
    if name in ("auto", "this"):
        if torch.cuda.is_available():
            card = torch.cuda.get_device_properties(torch.cuda.current_device())
            known = _known(card.name)
            return replace(known, memory_bytes=card.total_memory) if known else measure(torch.device("cuda"))
        return DEVICES["h100"] if name == "auto" else measure(torch.device("cpu"))
    found = _known(name)
    if found is None:
        raise UnknownNameError(f"no device '{name}'{suggestion(name.lower(), [*DEVICES, *MEASURED])}")
    return found


def _known(name: str) -> Device | None:
    plain = "".join(c for c in name.lower() if c.isalnum()).removeprefix("nvidia").removeprefix("geforce")
    if any(word in plain for word in _SLOWER):
        return None
    return next((device for key, device in DEVICES.items() if plain.startswith(key)), None)


def measure(place: torch.device) -> Device:
    """Time dense attention, a product, the sparse kernel and the search of this library on `place`, for two seconds.

    Raises: InputError where the device cannot be used.
    """
    import torch

    from ...kernels.attention import block_mass, dense_attention, sparse_attention
    from ...kernels.block_index import BlockIndex

    heads, tokens, width, block = 2, 4096, 64, 64
    dtype = torch.float32 if place.type == "cpu" else torch.bfloat16
    if place.type == "cuda":
        heads, tokens, width = 16, 16384, 128
    generator = torch.Generator("cpu").manual_seed(0)
    try:
        q, k, v = (torch.randn(1, heads, tokens, width, generator=generator).to(place, dtype) for _ in range(3))
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"cannot use the device '{place}': {str(error).splitlines()[0]}") from error
    rows = tokens // block
    kept = torch.rand(1, heads, rows, rows, generator=generator).argsort(-1) < round(0.2 * rows)
    index = BlockIndex.from_mask(kept.to(place), queries=tokens, keys=tokens, query_block=block, key_block=block)
    _, lse = dense_attention(q, k, v, return_lse=True)
    x, w = (torch.randn(tokens, side, generator=generator).to(place, dtype) for side in (1024, tokens))
    full = 4.0 * heads * tokens**2 * width
    density = kept.float().mean().item()

    dense = full / _seconds(lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v), place)
    sparse = density * full / _seconds(lambda: sparse_attention(q, k, v, index), place)
    mass = 0.5 * full / _seconds(lambda: block_mass(q, k, lse, query_block=block, key_block=block), place)
    gemm = 2.0 * x.numel() * tokens / _seconds(lambda: w @ x, place)
    return Device(
        name="cpu" if place.type == "cpu" else torch.cuda.get_device_name(place),
        dense=dense / 1e12,
        gemm=gemm / 1e12,
        sparse=sparse / 1e12,
        mass=mass / 1e12,
        memory_bytes=None if place.type == "cpu" else torch.cuda.get_device_properties(place).total_memory,
        weight_bytes=dtype.itemsize,
        source=f"measured now: {heads} heads, {tokens} tokens, width {width}, {str(dtype).removeprefix('torch.')}, "
        f"{torch.get_num_threads()} CPU thread(s)",
    )


def _seconds(work: Callable[[], object], place: torch.device, *, budget: float = 0.4) -> float:
    import torch

    # The best of a few: what else runs on the machine only ever adds.
    best, spent = float("inf"), 0.0
    work()
    while spent < budget:
        if place.type == "cuda":
            torch.cuda.synchronize(place)
        start = time.perf_counter()
        work()
        if place.type == "cuda":
            torch.cuda.synchronize(place)
        taken = time.perf_counter() - start
        best, spent = min(best, taken), spent + taken
    return best
