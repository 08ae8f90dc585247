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

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from outpace.kernels.attention import triton as kernels
from outpace.kernels.attention.launch import tiling

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
    signature, aligned = {}, {}
    for place, name in enumerate(function.arg_names):
        is_stride = re.fullmatch("[qkvol]_[a-z]", name) is not None
        kind = pointers.get(name) or ("fp32" if name == "scale" else "i32")
        signature[name] = "constexpr" if name in constants else kind
        if name in pointers or is_stride:
            aligned[(place,)] = [["tt.divisibility", 16]]
    source = ASTSource(
        fn=function,
        signature=signature,
        constexprs={(function.arg_names.index(n),): value for n, value in constants.items() if n in signature},
        attrs={
            place: value for place, value in aligned.items() if signature[function.arg_names[place[0]]] != "constexpr"
        },
    )
    options = {"num_warps": warps, "num_stages": stages}
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        usage = subprocess.run(
            [CUOBJDUMP, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        )
    registers, stack = re.search(r"REG:(\d+) STACK:(\d+)", usage.stdout).groups()
    ptx, loop = made.asm["ptx"], made.asm["ttgir"]
    return {
        "kernel": kernel,
        "dtype": str(dtype).removeprefix("torch."),
        "width": width,
        "query_block": blocks[0],
        "key_block": blocks[1],
        "capability": capability,
        "tile": tile,
        "stages": stages,
        "warps": warps,
        "registers": int(registers),
        "spilled_bytes": int(stack),
        "shared_bytes": made.metadata.shared,
        "shared_limit": SHARED_BYTES[capability],
        "buffers": max(map(int, re.findall(rf"memdesc<(\d+)x{tile}x{padded}x", loop)), default=0),
        "warp_group_products": ptx.count("wgmma.mma_async"),
        "asynchronous_copies": len(re.findall(r"cp\.async\.c[ag]\.", ptx)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two kernels of bfloat16 for Hopper")
    quick = parser.parse_args().quick
    cases = [(kernel, torch.bfloat16, 128, (64, 64), 90) for kernel in ("sparse", "mass")]
    if not quick:
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


if __name__ == "__main__":
    main()
