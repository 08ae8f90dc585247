"""Compiles the Triton kernels for GPUs that are not here, and prints what came out, one JSON object a line.

    python tests/kernels/compile_for_gpus.py [--quick]

It shows that they compile, what they hold and what they spill; not that they are right, nor fast.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from outpace.kernels.attention import triton as kernels
from outpace.kernels.attention.launch import tiling
from outpace.kernels.moe import triton as experts

SHARED_BYTES = {80: 163 << 10, 89: 99 << 10, 90: 227 << 10}
TYPES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
PRECISION = {torch.float32: "tf32x3", torch.float16: "ieee", torch.bfloat16: "ieee"}
CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


def describe(kernel: str, dtype: torch.dtype, width: int, blocks: tuple[int, int], capability: int) -> dict:
    """Compile one kernel as it would be launched on a card of this capability, for contiguous inputs."""
    function = {"sparse": kernels._sparse_kernel, "mass": kernels._mass_kernel}[kernel]
    padded = triton.next_power_of_2(width)
    tile, stages, warps = tiling(
        *blocks, padded, dtype.itemsize, SHARED_BYTES[capability], tensors=2 if kernel == "sparse" else 1
    )
    constants = {"QUERY_BLOCK": blocks[0], "KEY_BLOCK": blocks[1], "TILE": tile, "D": width, "WIDTH": padded}
    constants |= {"PRECISION": PRECISION[dtype], "q_d": 1, "k_d": 1, "v_d": 1, "o_d": 1, "l_n": 1}
    pointers = dict.fromkeys(("q", "k", "v", "out"), f"*{TYPES[dtype]}") | {"lse": "*fp32", "mass": "*fp32"}
    pointers |= dict.fromkeys(("work", "indptr", "indices", "valid_keys"), "*i32")
    options = {"num_warps": warps, "num_stages": stages}
    found, loop = compiled(function, constants, pointers, options, capability)
    return {
        "kernel": kernel,
        "dtype": str(dtype).removeprefix("torch."),
        "width": width,
        "query_block": blocks[0],
        "key_block": blocks[1],
        "tile": tile,
        **found,
        "buffers": max(map(int, re.findall(rf"memdesc<(\d+)x{tile}x{padded}x", loop)), default=0),
    }


def describe_product(dtype: torch.dtype, of: str, capability: int) -> dict:
    """Compile the product of routed experts, `of` "rows" or of their "gradients", whose matrices lie the other way."""
    constants = {"ROWS": experts.ROWS, "COLUMNS": experts.COLUMNS, "DEPTH": experts.DEPTH_BYTES // dtype.itemsize}
    constants |= {"PRECISION": PRECISION[dtype], "r_i": 1, "o_o": 1, "w_i" if of == "rows" else "w_o": 1}
    pointers = dict.fromkeys(("rows", "weight", "out"), f"*{TYPES[dtype]}")
    pointers |= dict.fromkeys(("expert_T", "first_T", "end_T"), "*i32")
    options = {"num_warps": experts.WARPS[dtype.itemsize], "num_stages": experts.STAGES}
    found, _ = compiled(experts._multiply_kernel, constants, pointers, options, capability)
    return {"kernel": f"product of {of}", "dtype": str(dtype).removeprefix("torch."), **found}


def compiled(function: Any, constants: dict, pointers: dict, options: dict, capability: int) -> tuple[dict, str]:
    """What came out where strides and features are multiples of 16, and the program before its last stages."""
    signature, aligned = {}, {}
    for place, name in enumerate(function.arg_names):
        is_size = re.fullmatch("[a-z]_[a-z]|features_.*", name) is not None
        kind = pointers.get(name) or ("fp32" if name == "scale" else "i32")
        signature[name] = "constexpr" if name in constants else kind
        if name in pointers or is_size:
            aligned[(place,)] = [["tt.divisibility", 16]]
    source = ASTSource(
        fn=function,
        signature=signature,
        constexprs={(function.arg_names.index(n),): value for n, value in constants.items() if n in signature},
        attrs={
            place: value for place, value in aligned.items() if signature[function.arg_names[place[0]]] != "constexpr"
        },
    )
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        usage = subprocess.run(
            [CUOBJDUMP, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        )
    registers, stack = re.search(r"REG:(\d+) STACK:(\d+)", usage.stdout).groups()
    found = {
        "capability": capability,
        "stages": options["num_stages"],
        "warps": options["num_warps"],
        "registers": int(registers),
        "spilled_bytes": int(stack),
        "shared_bytes": made.metadata.shared,
        "shared_limit": SHARED_BYTES[capability],
        "warp_group_products": made.asm["ptx"].count("wgmma.mma_async"),
        "asynchronous_copies": len(re.findall(r"cp\.async\.c[ag]\.", made.asm["ptx"])),
    }
    return found, made.asm["ttgir"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="each kernel once, in bfloat16, for Hopper")
    quick = parser.parse_args().quick
    products = [(torch.bfloat16, "rows", 90)]
    cases = [(kernel, torch.bfloat16, 128, (64, 64), 90) for kernel in ("sparse", "mass")]
    if not quick:
        products += [
            (dtype, of, capability) for capability in SHARED_BYTES for dtype in TYPES for of in ("rows", "gradients")
        ]
        cases += [
            (kernel, dtype, width, blocks, capability)
            for kernel in ("sparse", "mass")
            for capability in SHARED_BYTES
            for dtype in TYPES
            for width in (32, 64, 96, 128)
            for blocks in [(64, 64), (128, 64), (128, 128), (16, 16)]
            if dtype == torch.bfloat16 or (blocks == (64, 64) and capability == 90)
        ]
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TRITON_CACHE_DIR"] = cache
        for case in cases:
            print(json.dumps(describe(*case)), flush=True)
        for product in products:
            print(json.dumps(describe_product(*product)), flush=True)


if __name__ == "__main__":
    main()
