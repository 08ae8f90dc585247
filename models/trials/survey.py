"""The survey's cost model in small: what its two bounds foresee of the time that passes of a Llama take."""

from __future__ import annotations

import functools
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from ..survey import Attention, Cost, Machine, cost, least_seconds
from ..survey.architectures import llama
from .trial import Trial

WIDTHS, LAYERS, VOCABULARY = (512, 640, 768), 4, 1000
PASSES = ((1, 1), (1, 4), (1, 16), (16, 1), (64, 1), (256, 1))
"""(tokens, sequences): steps of decoding, and reading."""
REPETITIONS = 7


def seconds(call: Callable[[], Any]) -> float:
    """Process time of a call, the least of some: what other work adds does not count."""
    times = []
    for _ in range(REPETITIONS):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)


def this_machine() -> Machine:
    """Its two numbers in float32: a product of large matrices, and a matrix too large for a cache times a vector."""
    square, tall, one = torch.randn(1024, 1024), torch.randn(16384, 4096), torch.randn(4096)
    return Machine(
        name="this machine",
        flops_per_second=2 * 1024**3 / seconds(lambda: square @ square),
        bytes_per_second=4 * tall.numel() / seconds(lambda: tall @ one),
    )


@functools.cache
def measured(seed: int) -> list[tuple[Cost, Machine, float]]:
    """For every pass what it costs, on what, and the seconds that it took."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    width = WIDTHS[seed % len(WIDTHS)]
    ours: dict[str, Any] = {"width": width, "layers": LAYERS, "heads": width // 64, "hidden": 4 * width}
    parts = tuple(
        replace(part, bits=32, **({"causal": False} if isinstance(part, Attention) else {}))
        for part in llama(**ours, vocabulary=VOCABULARY)
    )
    config = LlamaConfig(
        hidden_size=width, num_hidden_layers=LAYERS, num_attention_heads=width // 64, intermediate_size=4 * width,
        vocab_size=VOCABULARY,
    )  # fmt: skip
    model, machine, found = LlamaForCausalLM(config).eval(), this_machine(), []
    for tokens, batch in PASSES:
        ids = torch.randint(0, VOCABULARY, (batch, tokens))
        with torch.no_grad():
            took = seconds(functools.partial(model, ids, use_cache=False))
        found.append((cost(parts, tokens, batch=batch), machine, took))
    return found


def factor(bound: Callable[[Cost, Machine], float]) -> Callable[[int], float]:
    """By what factor times and bounds differ, either way: the geometric mean over the passes."""

    def run(seed: int) -> float:
        apart = [abs(math.log(took / bound(spent, machine))) for spent, machine, took in measured(seed)]
        return math.exp(statistics.mean(apart))

    return run


TRIAL = Trial(
    claim="the roofline foresees the time of reading and of decoding better than FLOPs or bytes alone",
    measure="factor between time and forecast",
    higher_is_better=False,
    arms={
        "roofline": factor(lambda spent, machine: least_seconds(spent, machine)[0]),
        "FLOPs alone": factor(lambda spent, machine: spent.flops / machine.flops_per_second),
        "bytes alone": factor(lambda spent, machine: spent.moved_bytes / machine.bytes_per_second),
    },
    against=("FLOPs alone", "bytes alone"),
    task=(
        f"Llamas of {LAYERS} layers, {', '.join(map(str, WIDTHS))} wide, float32, passes of 1 to 256 tokens and 1 to "
        "16 sequences, beside what large products and reads reach in the same process"
    ),
)
