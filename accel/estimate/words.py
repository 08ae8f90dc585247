"""An estimate in words."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .predict import Estimate


def describe(e: Estimate) -> str:
    """A few lines: what is made, what it costs, what can be gained, and the verdict."""
    size = f"{e.width} x {e.height}" + (f", {e.frames} frames" if e.frames is not None else "")
    calls = "1 call" if e.calls == 1 else f"{e.calls} calls"
    together = e.sequence > e.tokens
    text = f" + {e.sequence - e.tokens:,} of text" if together else ""
    lines = [
        ("", f"{e.model} ({e.transformer}), {size}, {e.steps} steps of {calls}, on {e.device}"),
        ("tokens", f"{e.tokens:,}{text} in self-attention" if e.sequence else f"{e.tokens:,}"),
        ("weights", f"{count(e.parameters)} parameters a denoiser, {memory(e.weights_bytes)}{_room(e)}"),
        ("FLOPs", f"{flops(e.flops_per_step)} a step, {flops(e.flops_total)} in total"),
        (
            "attention",
            f"{percent(e.attention_flops_share)} of the FLOPs, {percent(e.attention_time_share)} of the time",
        ),
        ("dense run", f"{duration(e.seconds_total)}, {duration(e.seconds_per_step)} a step (roofline, denoiser alone)"),
        ("at best", f"{e.ceiling:.2f}x, if attention cost nothing"),
        ("predicted", f"{e.predicted_speedup:.2f}x, {duration(e.predicted_seconds)}, {_how(e)}"),
        ("break-even", _even(e)),
        ("index", f"{memory(e.index_bytes)} of block indices (64 x 64)"),
        ("verdict", e.verdict),
        ("rates", e.device_source),
        *(("note", note) for note in e.notes),
    ]
    return "\n".join(_row(label, said) if label else said for label, said in lines)


def _row(label: str, said: str) -> str:
    return textwrap.fill(said, 110, initial_indent=label.ljust(12), subsequent_indent=" " * 12)


def _room(e: Estimate) -> str:
    if e.fits is None:
        return ""
    return "" if e.fits else f", more than {e.device} holds"


def _how(e: Estimate) -> str:
    searches = "1 search" if e.searches == 1 else f"{e.searches} searches"
    text = "" if abs(e.effective_sparsity - e.sparsity) < 0.005 else f" ({e.effective_sparsity:.2f} with text kept)"
    return f"at sparsity {e.sparsity:g}{text} with {e.dense_steps} of {e.steps} steps dense and {searches}"


def _even(e: Estimate) -> str:
    run = "never for the run" if e.break_even is None else f"{e.break_even:.2f} for the run with its search"
    return f"sparsity {e.kernel_break_even:.2f} for the kernel alone, {run}"


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
