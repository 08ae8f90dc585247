"""Compiles the Triton kernels for GPUs that are not here, and prints what came out, one JSON object a line.

    python tests/kernels/compile_for_gpus.py [--sample] [--part N/M]

It shows that they compile, what they hold, what they spill and how their warps lie; not that they are right, nor fast.
Every case is a launch that the launchers make on that card. Must run without TRITON_INTERPRET.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from outpace.kernels.attention import triton as attention
from outpace.kernels.attention.launch import AMD, AMD_SHARED_BYTES, Card, Plan, plan, refuses_plan
from outpace.kernels.forecast import triton as forecasts
from outpace.kernels.linear_attention import triton as linear
from outpace.kernels.moe import triton as experts
from outpace.kernels.triton_limits import unspilled

CARDS = {
    80: Card(capability=80, shared_bytes=163 << 10),
    89: Card(capability=89, shared_bytes=99 << 10),
    90: Card(capability=90, shared_bytes=227 << 10),
    100: Card(capability=100, shared_bytes=227 << 10),
    AMD: Card(capability=AMD, shared_bytes=AMD_SHARED_BYTES),
}
MULTIPROCESSOR_BYTES = {80: 164 << 10, 89: 100 << 10, 90: 228 << 10, 100: 228 << 10}
REGISTERS = 64 << 10
"""Of a multiprocessor."""
TENSOR_COLUMNS = 512
"""Of the memory of a Blackwell card's tensor cores."""
TYPES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
HALF, FULL = torch.bfloat16, torch.float32
CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One kernel as it is launched for contiguous inputs of usual sizes."""

    kernel: str
    capability: int
    dtype: torch.dtype
    function: Any
    constants: dict[str, Any]
    pointers: dict[str, str]
    warps: int
    stages: int = 3
    registers: int | None = None
    """Most of a thread; None leaves it to the assembler."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What else is worth knowing of it."""


def attention_case(
    kernel: str, capability: int, dtype: torch.dtype, width: int, blocks: tuple[int, int]
) -> Case | None:
    """Sparse attention or block mass; None where the launcher refuses it on this card."""
    card, padded, tensors = CARDS[capability], triton.next_power_of_2(width), 2 if kernel == "sparse" else 1
    if refuses_plan(card, *blocks, padded, dtype.itemsize, tensors=tensors):
        return None
    launch = plan(card, *blocks, padded, dtype.itemsize, tensors=tensors)
    assert isinstance(launch, Plan)
    pointers = dict.fromkeys(("q", "k", "v", "out"), f"*{TYPES[dtype]}") | {"lse": "*fp32", "mass": "*fp32"}
    return Case(
        kernel=kernel,
        capability=capability,
        dtype=dtype,
        function={"sparse": attention._sparse_kernel, "mass": attention._mass_kernel}[kernel],
        constants={
            **{"QUERY_BLOCK": blocks[0], "KEY_BLOCK": blocks[1], "ROWS": launch.rows, "TILE": launch.tile},
            **{"PIECE": launch.piece_of(width), "D": width, "WIDTH": padded, "PRECISION": precision(dtype, capability)},
            **dict.fromkeys(("q_d", "k_d", "v_d", "o_d", "l_n"), 1),
        },
        pointers=pointers | dict.fromkeys(("work", "indptr", "indices", "valid_keys"), "*i32"),
        warps=launch.warps,
        stages=launch.stages,
        facts={
            "width": width,
            "blocks": list(blocks),
            "rows": launch.rows,
            "tile": launch.tile,
            "planned_bytes": launch.shared_bytes(card, padded, dtype.itemsize, tensors),
        },
    )


def expert_case(capability: int, dtype: torch.dtype, of: str) -> Case:
    """The product of routed experts, `of` "rows" or of their "gradients", whose matrices lie the other way."""
    return Case(
        kernel=f"product of {of}",
        capability=capability,
        dtype=dtype,
        function=experts._multiply_kernel,
        constants={
            **{"ROWS": experts.ROWS, "COLUMNS": experts.COLUMNS, "DEPTH": experts.DEPTH_BYTES // dtype.itemsize},
            **{"PRECISION": precision(dtype, capability), "r_i": 1, "o_o": 1},
            "w_i" if of == "rows" else "w_o": 1,
        },
        pointers=dict.fromkeys(("rows", "weight", "out"), f"*{TYPES[dtype]}")
        | dict.fromkeys(("expert_T", "first_T", "end_T"), "*i32"),
        warps=experts.WARPS[dtype.itemsize],
        stages=experts.STAGES,
    )


def linear_case(capability: int, dtype: torch.dtype, width: int, gated: bool) -> Case:
    """Gated linear attention over keys of `width`, with a gate of its own for every channel, or one a head."""
    options = linear.options(width, 0 if capability == AMD else capability)
    return Case(
        kernel="linear attention",
        capability=capability,
        dtype=dtype,
        function=linear._gated_kernel,
        constants={
            **{"TOKENS": linear.TOKENS, "K": width, "PIECE": min(linear.PIECE, width)},
            **{"V": linear.values_of_tile(width, width), "PRECISION": precision(FULL, capability)},
            "g_g": int(gated),
        },
        pointers=dict.fromkeys(("q", "k", "v", "out", "gate"), f"*{TYPES[dtype]}")
        | dict.fromkeys(("state", "last"), "*fp32"),
        warps=options["num_warps"],
        registers=options.get("maxnreg"),
        facts={"width": width, "gate": "of every channel" if gated else "of every head"},
    )


def forecast_case(kernel: str, capability: int, dtype: torch.dtype, count: int) -> Case:
    """The weighted sum of `count` values, or its error."""
    values = {f"v{i}": f"*{TYPES[dtype]}" for i in range(forecasts.MOST)}
    return Case(
        kernel=kernel,
        capability=capability,
        dtype=dtype,
        function={"weighted sum": forecasts._combine_kernel, "forecast error": forecasts._sums_kernel}[kernel],
        constants={"COUNT": count, "NUMBERS": forecasts.NUMBERS},
        pointers=values | {"out": f"*{TYPES[dtype]}", "truth": f"*{TYPES[dtype]}", "found": "*fp32"},
        warps=forecasts.WARPS,
        registers=unspilled(0 if capability == AMD else capability).get("maxnreg"),
        facts={"values": count},
    )


def precision(dtype: torch.dtype, capability: int) -> str:
    """As `triton_limits.precision`."""
    return "tf32x3" if dtype == FULL and capability != AMD else "ieee"


def every_case() -> list[Case]:
    """All kernels, cards and types; every width and block in bfloat16, those of real models in the other types."""
    found: list[Case | None] = []
    for capability in CARDS:
        for kernel in ("sparse", "mass"):
            for width in attention.WIDTHS:
                for blocks in attention.BLOCKS:
                    usual = width in (64, 128) and blocks in ((64, 64), (128, 64))
                    # 128 x 128 and 128 x 64 are one kernel in float32, but for a number: programs take fewer queries.
                    distinct = width != 96 and blocks in ((16, 16), (32, 32), (128, 64))
                    found.append(attention_case(kernel, capability, HALF, width, blocks))
                    if usual:
                        found.append(attention_case(kernel, capability, torch.float16, width, blocks))
                    if distinct and capability != AMD:
                        found.append(attention_case(kernel, capability, FULL, width, blocks))
        for dtype in TYPES:
            found += [expert_case(capability, dtype, of) for of in ("rows", "gradients")]
            found += [
                linear_case(capability, dtype, width, gated)
                for width in (16, 32, 64, 128)
                for gated in (True, False)
                if dtype == HALF or (width == 128 and gated)
            ]
            for count in (1, 2, 3, forecasts.MOST):
                found += [
                    forecast_case(kernel, capability, dtype, count) for kernel in ("weighted sum", "forecast error")
                ]
    return [case for case in found if case is not None]


def sample() -> list[Case]:
    """One of each kernel, and the blocks that are taken by default, for A100 and Hopper."""
    found = [attention_case("sparse", capability, HALF, 128, (128, 64)) for capability in (80, 90)]
    found += [
        attention_case("mass", 90, HALF, 128, (128, 64)),
        expert_case(90, HALF, "rows"),
        linear_case(80, HALF, 64, True),
        forecast_case("weighted sum", 90, HALF, 2),
        forecast_case("forecast error", 80, HALF, 3),
    ]
    return [case for case in found if case is not None]


def compiled(case: Case) -> dict[str, Any]:
    """What came out of one case, where strides and features are multiples of 16."""
    signature, aligned = {}, {}
    for place, name in enumerate(case.function.arg_names):
        if name in case.constants:
            signature[name] = "constexpr"
            continue
        is_weight = re.fullmatch(r"scale|w\d", name) is not None
        signature[name] = case.pointers.get(name) or ("fp32" if is_weight else "i32")
        if name in case.pointers or re.fullmatch("[a-z]_[a-z]|features_.*|numbers|width|value_width", name):
            aligned[(place,)] = [["tt.divisibility", 16]]
    names = case.function.arg_names
    source = ASTSource(
        fn=case.function,
        signature=signature,
        constexprs={(names.index(n),): value for n, value in case.constants.items() if n in signature},
        attrs=aligned,
    )
    amd = case.capability == AMD
    target = GPUTarget("hip", "gfx942", 64) if amd else GPUTarget("cuda", case.capability, 32)
    options = {"num_warps": case.warps, "num_stages": min(case.stages, 2) if amd else case.stages}
    if case.registers is not None:
        options["maxnreg"] = case.registers
    made = triton.compile(source, target=target, options=options)
    found = {
        "kernel": case.kernel,
        "capability": "gfx942" if amd else case.capability,
        "dtype": str(case.dtype).removeprefix("torch."),
        **case.facts,
        "warps": case.warps,
        "stages": case.stages,
        "shared_bytes": made.metadata.shared,
        "shared_limit": CARDS[case.capability].shared_bytes,
    }
    if amd:
        text = made.asm["amdgcn"]
        spilled = re.findall(r"\.(?:vgpr|sgpr)_spill_count:\s*(\d+)", text)
        return found | {"spilled_bytes": 4 * sum(map(int, spilled)), "matrix_products": text.count("v_mfma")}
    registers, stack = resources(made.asm["cubin"])
    columns = getattr(made.metadata, "tmem_size", 0) or 0
    return found | {
        "registers": registers,
        "spilled_bytes": stack,
        "tensor_columns": columns,
        "programs": programs(case, registers, made.metadata.shared, columns),
        "trap": "trap;" in made.asm["ptx"],
        "rows_shared_by_warps": rows_shared(made.asm["ttgir"]),
        "warp_group_products": made.asm["ptx"].count("wgmma.mma_async"),
        "asynchronous_copies": len(re.findall(r"cp\.async\.c[ag]\.", made.asm["ptx"])),
        "wide_loads": len(re.findall(r"ld\.global\.v4", made.asm["ptx"])),
    }


def resources(cubin: bytes) -> tuple[int, int]:
    """Registers a thread, and bytes of its stack: what is spilled."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [CUOBJDUMP, "--dump-resource-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    registers, stack = map(int, re.search(r"REG:(\d+) STACK:(\d+)", usage).groups())  # pyright: ignore
    return registers, stack


def programs(case: Case, registers: int, shared: int, columns: int) -> int:
    """How many run on one multiprocessor at once."""
    by_registers = REGISTERS // (-(-registers // 8) * 8 * 32 * case.warps)
    by_shared = MULTIPROCESSOR_BYTES[case.capability] // (shared + 1024)
    return min(by_registers, by_shared, TENSOR_COLUMNS // columns if columns else by_shared)


def rows_shared(layouts: str) -> bool:
    """Whether any product of matrices gives the columns of a row to more than one warp."""
    found = re.findall(r"nvidia_mma<\{[^}]*warpsPerCTA = \[(\d+), (\d+)\]", layouts)
    return any(int(columns) > 1 for _, columns in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", action="store_true", help="one of each kernel instead of all")
    parser.add_argument("--part", default="1/1", metavar="N/M", help="only every M-th case, from the N-th on")
    chosen = parser.parse_args()
    first, every = map(int, chosen.part.split("/"))
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TRITON_CACHE_DIR"] = cache
        for case in (sample() if chosen.sample else every_case())[first - 1 :: every]:
            print(json.dumps(compiled(case)), flush=True)


if __name__ == "__main__":
    main()
