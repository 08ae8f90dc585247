"""Runs tests as other processors would: other instructions, other sums, another number of threads.

    python tests/on_other_processors.py                            # the whole default suite in every setting
    python tests/on_other_processors.py tests/accel/test_moments.py -k threads
    python tests/on_other_processors.py --setting "two threads" --setting AVX2   # the settings named so

What only one processor's library keeps to (the same bits from two objects, or from two sizes of a batch) fails in one
of these settings, where it would fail on somebody else's machine.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

SETTINGS = {
    "as it is": {},
    "no vectors, sums that every processor can (torch, MKL)": {
        "ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "SSE41",
    },
    "AVX2 everywhere (oneDNN, MKL, torch)": {
        "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ATEN_CPU_CAPABILITY": "avx2",
    },
    "two threads": {"OMP_NUM_THREADS": "2"},
    "sums that every processor can (MKL)": {"MKL_CBWR": "COMPATIBLE"},
    "AVX2 sums (MKL)": {"MKL_CBWR": "AVX2"},
    "no vectors (torch)": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
    "AVX2 (torch)": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
}  # fmt: skip
"""Environment variables of each setting, the most different first.

Where torch is told of fewer instructions than the processor has, oneDNN is told too: torch asks it what the processor
can, and attention in half types then ends with "pack_vnni2 is only supported when avx512 is supported", as it does on
no real processor.
"""


def run(changes: dict[str, str], arguments: list[str]) -> tuple[int, str, list[str]]:
    """Exit code, pytest's last line and the tests that failed; what pytest says meanwhile goes to the error stream."""
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command = [*pytest, "-m", "not slow", "--tb=short", *arguments]
    environment = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", **os.environ, **changes}
    lines = []
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        for line in running.stdout:
            sys.stderr.write(line)
            lines += [line.rstrip()] if line.strip() else []
    failed = [line for line in lines if re.match(r"(FAILED|ERROR) ", line)]
    return running.returncode, lines[-1] if lines else "pytest said nothing", failed


def main(arguments: list[str]) -> int:
    reader = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    reader.add_argument("--setting", action="append", default=[])
    asked, arguments = reader.parse_known_args(arguments)
    chosen = {
        name: changes
        for name, changes in SETTINGS.items()
        if not asked.setting or any(words in name for words in asked.setting)
    }
    if not chosen:
        print(f"no setting of that name; there are: {', '.join(SETTINGS)}", file=sys.stderr)
        return 2
    worst = 0
    for name, changes in chosen.items():
        begin = time.monotonic()
        code, last, failed = run(changes, arguments)
        worst = max(worst, code)
        said = " ".join(f"{key}={value}" for key, value in changes.items()) or "nothing set"
        print(f"{'ok' if code == 0 else '--'}  {name} ({said}): {last.strip('= ')} [{time.monotonic() - begin:.0f} s]")
        for line in failed:
            print(f"      {line}")
        sys.stdout.flush()
    return worst


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
