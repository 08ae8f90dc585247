"""Every Triton kernel, compiled for GPUs that are not here: within their limits, without spilling, laid out as meant.

What is compiled is what the launchers would launch (`compile_for_gpus.py`), so the plans of `attention/launch.py` are
held to what the compiler makes of them. In other processes, because this one has Triton's interpreter on.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64"), reason="needs Triton's assembler for NVIDIA cards"
)
MOST_SPILLED = 96
"""Bytes of a thread in float32, a few registers: see `test_what_float32_spills_is_listed`."""


def compiled(*choice: str, processes: int = 1) -> list[dict[str, Any]]:
    """What compiling tells of every kernel chosen."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    script = Path(__file__).with_name("compile_for_gpus.py")

    def part(number: int) -> list[dict[str, Any]]:
        command = [sys.executable, str(script), *choice, "--part", f"{number}/{processes}"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    with ThreadPoolExecutor(processes) as pool:
        return [kernel for found in pool.map(part, range(1, processes + 1)) for kernel in found]


def check(kernel: dict[str, Any]) -> None:
    """What holds for every kernel on every card."""
    assert kernel["shared_bytes"] <= kernel["shared_limit"], kernel
    assert kernel["shared_bytes"] <= kernel.get("planned_bytes", kernel["shared_limit"]), kernel
    if kernel["dtype"] != "float32":
        assert kernel["spilled_bytes"] == 0, kernel
    assert kernel["spilled_bytes"] <= MOST_SPILLED, kernel
    if kernel["capability"] == "gfx942":
        assert kernel["matrix_products"] > 0 or kernel["kernel"] in ("weighted sum", "forecast error"), kernel
        return
    assert not kernel["trap"] and kernel["programs"] >= 1, kernel
    assert kernel["tensor_columns"] <= 512, kernel
    if kernel["kernel"] in ("sparse", "mass") or kernel["kernel"].startswith("product"):
        assert kernel["asynchronous_copies"] > 0, kernel
    if kernel["kernel"] == "sparse":  # the mass adds up whole blocks, whichever warp has which of their columns
        assert not kernel["rows_shared_by_warps"], kernel
        wide = kernel["dtype"] != "float32" and kernel["rows"] >= 64
        assert not (kernel["capability"] == 90 and wide) or kernel["warp_group_products"] > 0, kernel
    if kernel["kernel"] in ("weighted sum", "forecast error"):
        assert kernel["wide_loads"] >= kernel["values"], kernel
    if kernel.get("blocks") in ([64, 64], [128, 64]) and kernel["dtype"] != "float32":
        assert kernel["programs"] >= 2, kernel


def test_the_kernels_that_run_by_default_compile_as_they_were_meant() -> None:
    found = compiled("--sample")
    assert {(k["kernel"], k["capability"]) for k in found} >= {("sparse", 80), ("sparse", 90), ("mass", 90)}
    for kernel in found:
        check(kernel)


@pytest.mark.slow
def test_every_kernel_compiles_for_every_card(record_property: pytest.FixtureRequest) -> None:
    found = compiled(processes=min(2, os.cpu_count() or 1))
    assert {kernel["capability"] for kernel in found} == {80, 89, 90, 100, "gfx942"}
    kernels = {"sparse", "mass", "product of rows", "product of gradients", "linear attention"}
    assert {kernel["kernel"] for kernel in found} == kernels | {"weighted sum", "forecast error"}
    assert {kernel["dtype"] for kernel in found} == {"float32", "float16", "bfloat16"}
    spilling = [
        {key: k[key] for key in ("kernel", "capability", "dtype", "width", "blocks", "spilled_bytes") if key in k}
        for k in found
        if k["spilled_bytes"]
    ]
    print("\n".join([f"{len(found)} kernels; those that spill:", *map(json.dumps, spilling)]))
    for kernel in found:
        check(kernel)
