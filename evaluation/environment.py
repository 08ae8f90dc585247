"""What a number was measured on: versions, processor, threads, device, commit."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

PACKAGES = ("outpace", "torch", "diffusers", "transformers", "accelerate", "numpy", "scipy", "triton", "xformers")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "CUDA_VISIBLE_DEVICES")


def environment(device: str = "cpu") -> dict[str, str]:
    """Plain names to plain values, in the order a reader wants them."""
    import torch

    found = {
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else processor(),
        "processor": processor(),
        "cores": f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} usable",
        "torch threads": str(torch.get_num_threads()),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": sys.version.split()[0],
    }
    for package in PACKAGES:
        version = version_of(package)
        if version:
            found[package] = version
    if device.startswith("cuda"):
        found["CUDA"] = str(torch.version.cuda)
    for name in THREADS:
        if name in os.environ:
            found[name] = os.environ[name]
    if hasattr(os, "getloadavg"):
        found["load average"] = f"{os.getloadavg()[0]:.1f}"
    revision = commit()
    if revision:
        found["commit"] = revision
    return found


def version_of(package: str) -> str | None:
    """The installed version, this library's own even where it runs from a checkout; None where it is missing."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        root = sys.modules.get(package)
        return getattr(root, "__version__", None)


def processor() -> str:
    """The processor's name as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def commit() -> str | None:
    """Commit of the checkout this file lies in, marked where files differ from it; None outside a checkout."""
    here = Path(__file__).resolve().parent
    if not any((parent / ".git").exists() for parent in here.parents):
        return None
    try:
        run = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=10"],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return run.stdout.strip()
