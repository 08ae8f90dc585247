"""Numbers in words: shares, counts, bytes, operations, seconds; and the lines they stand in."""

from __future__ import annotations

import textwrap


def run_in_words(
    model: str, transformer: str, *, width: int, height: int, frames: int | None, steps: int, calls: int
) -> str:
    """What is made, by what and in how many steps."""
    size = f"{width} x {height}" + (f", {frames} frames" if frames is not None else "")
    each = "1 call" if calls == 1 else f"{calls} calls"
    return f"{model} ({transformer}), {size}, {steps} steps of {each}"


def row(label: str, said: str) -> str:
    """A labelled line, folded under itself."""
    return textwrap.fill(said, 110, initial_indent=label.ljust(12), subsequent_indent=" " * 12)


def _scaled(value: float, units: tuple[str, ...]) -> str:
    power = 0
    while value >= 999.5 and power < len(units) - 1:
        value, power = value / 1000.0, power + 1
    return f"{_three_digits(value)} {units[power]}".rstrip()


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"


def percent(share: float) -> str:
    """A share as "87.1 %"."""
    return f"{100 * share:.1f} %"


def count(value: float) -> str:
    """1_420_000_000 as "1.42 billion"."""
    return _scaled(value, ("", "thousand", "million", "billion"))


def memory(value: float) -> str:
    """Bytes in decimal units, as memory is sold."""
    return _scaled(value, ("B", "kB", "MB", "GB", "TB"))


def flops(value: float) -> str:
    """Operations: 6.03e17 as "603 PFLOP"."""
    return _scaled(value, ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP"))


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 1.0:
        return f"{_three_digits(1000 * seconds)} ms"
    if seconds < 120.0:
        return f"{_three_digits(seconds)} s"
    if seconds < 7200.0:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"
