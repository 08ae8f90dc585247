"""A feed-forward layer split into experts beside the dense one, on a CPU: time, forward alone and with gradients.

    python benchmarks/moe_cpu.py [--quick] [--repetitions COUNT] [--out FOLDER]      # or: make bench-moe

The layer is Dense2MoE's 1S12E2A: one shared expert, a quarter of the hidden units, and 12 routed ones of which a token
goes through 2, which is 37.5 % of the FLOPs. Its time has everything in it: router, sorting, experts, sums. Beside it
stands the dense layer with the hidden units cut to the same 37.5 %, the least that this number of FLOPs takes here.

Every repetition runs each layer in turn, first once uncounted: a model calls layers of one kind after another, and the
memory that the layer before gave back is not asked for anew. Ratios are taken within a repetition and
the medians are shown. Time is that of the process, all threads added up, so that other processes count for little;
"elapsed" is the same ratio by the clock, for the backend that is taken unless asked otherwise. Writes moe_cpu.json and
.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import torch.nn.functional as F
from torch import Tensor

from outpace.accel.experts.feed_forward import Router
from outpace.evaluation.environment import environment
from outpace.kernels.feed_forward import ACTIVATIONS
from outpace.kernels.moe import EXPERT_FFN, Experts, expert_ffn

EXPERTS, ACTIVE = 12, 2
FRACTION = 0.25 + 0.75 * ACTIVE / EXPERTS
BACKENDS = ("loop", "grouped")
WIDTHS, TOKENS = (384, 768, 1152), (256, 1024, 4096)
LEAST_SECONDS = 0.03
"""That a layer is timed for in each repetition."""


@dataclass(frozen=True, slots=True)
class Case:
    """One layer at one number of tokens."""

    width: int
    tokens: int
    activation: str
    """Of 4 x width hidden units; "silu" stands for the gated layer with three matrices (SwiGLU)."""
    threads: int


@dataclass(frozen=True, slots=True)
class Layer:
    """A dense layer; two or three matrices."""

    activation: str
    up: Tensor
    bias: Tensor
    down: Tensor
    gate: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        act, hidden = ACTIVATIONS[self.activation], F.linear(x, self.up, self.bias)
        hidden = act(hidden) if self.gate is None else act(F.linear(x, self.gate)) * hidden
        return F.linear(hidden, self.down)


def weights(*shape: int, inputs: int = -1) -> Tensor:
    """Normal numbers that keep the size of what they are multiplied with, along dimension `inputs`."""
    return torch.randn(shape).mul_(shape[inputs] ** -0.5).requires_grad_()


def dense(case: Case, hidden: int) -> Layer:
    """A layer of the case's kind with as many hidden units."""
    return Layer(
        case.activation,
        weights(hidden, case.width),
        weights(hidden),
        weights(case.width, hidden),
        weights(hidden, case.width) if case.activation == "silu" else None,
    )


def mixture(case: Case, backend: str) -> Callable[[Tensor], Tensor]:
    """A shared expert, a router and routed experts with as many weights as the dense layer."""
    width, each = case.width, 3 * case.width // EXPERTS
    shared, router = dense(case, width), Router(width, EXPERTS, "softmax")
    experts = Experts(
        activation=case.activation,
        up_EDH=weights(EXPERTS, width, each, inputs=1),
        down_EHO=weights(EXPERTS, each, width, inputs=1),
        gate_EDH=weights(EXPERTS, width, each, inputs=1) if case.activation == "silu" else None,
        up_bias_EH=weights(EXPERTS, each),
    )

    def run(x: Tensor) -> Tensor:
        gates, index = router(x).topk(ACTIVE)
        return shared(x) + expert_ffn(x, experts, index, gates, backend=backend)

    return run


def seconds(
    call: Callable[[Callable[[Tensor], Tensor]], None], layer: Callable[[Tensor], Tensor]
) -> tuple[float, float]:
    """(time of this process, elapsed time) of one call: the means of so many that they take `LEAST_SECONDS`."""
    start = time.process_time()
    call(layer)
    calls = max(1, int(LEAST_SECONDS / (time.process_time() - start)))
    start, clock = time.process_time(), time.perf_counter()
    for _ in range(calls):
        call(layer)
    return (time.process_time() - start) / calls, (time.perf_counter() - clock) / calls


def paired(times: list[dict[str, tuple[float, float]]], layer: str, clock: int) -> dict[str, float]:
    """Median, least and most of the ratios to the dense layer, each within a repetition."""
    ratios = sorted(one[layer][clock] / one["dense"][clock] for one in times)
    return {"median": statistics.median(ratios), "least": ratios[0], "most": ratios[-1]}


def measure(case: Case, repetitions: int) -> dict[str, Any]:
    """Times of every layer and ratios to the dense one, without gradients and with them."""
    torch.manual_seed(case.width + case.tokens)
    torch.set_num_threads(case.threads)
    x, towards = torch.randn(case.tokens, case.width, requires_grad=True), torch.randn(case.tokens, case.width)
    hidden = 4 * case.width
    layers: dict[str, Callable[[Tensor], Tensor]] = {"dense": dense(case, hidden)}
    layers |= {backend: mixture(case, backend) for backend in BACKENDS}
    layers["cut"] = dense(case, int(hidden * FRACTION))

    def forward(layer: Callable[[Tensor], Tensor]) -> None:
        with torch.no_grad():
            layer(x)

    def train(layer: Callable[[Tensor], Tensor]) -> None:
        layer(x).backward(towards)

    found: dict[str, Any] = {"width": case.width, "tokens": case.tokens, "activation": case.activation}
    found |= {"threads": case.threads, "repetitions": repetitions}
    for name, call in (("forward", forward), ("training", train)):
        times = [{one: seconds(call, run) for one, run in layers.items()} for _ in range(repetitions)]
        found[name] = {"dense_seconds": statistics.median(one["dense"][0] for one in times)}
        found[name] |= {layer: paired(times, layer, 0) for layer in (*BACKENDS, "cut")}
        found[name]["elapsed"] = {layer: paired(times, layer, 1) for layer in BACKENDS}
    return found


def markdown(report: dict[str, Any]) -> str:
    """The report as a table."""
    lines = ["# A feed-forward layer split into experts, on a CPU", "", f"`{report['command']}`", ""]
    lines += [f"- {name}: {value}" for name, value in report["environment"].items()]
    lines += [
        "",
        f"1S12E2A in float32: {FRACTION:.1%} of the FLOPs, router and sorting in its time. Process time beside",
        'that of the dense layer, median of paired ratios (least to most); "cut" is a dense layer with as many FLOPs.',
        f'`backend="auto"` takes {report["automatic"]}; "elapsed" is its ratio by the clock. With two threads and few',
        "tokens, each of the mixture's many short steps is split and waited for, beside the few long ones of the dense",
        "layer.",
        "",
        "| layer | width | tokens | threads | dense, ms | loop | grouped | cut | elapsed "
        "| training: dense, ms | loop | grouped | cut | elapsed |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for case in report["cases"]:
        cells = ["SwiGLU" if case["activation"] == "silu" else "GELU"]
        cells += [str(case[name]) for name in ("width", "tokens", "threads")]
        for part in (case["forward"], case["training"]):
            cells.append(f"{1e3 * part['dense_seconds']:.1f}")
            for name in (*BACKENDS, "cut"):
                ratio = part[name]
                cells.append(f"{ratio['median']:.2f} ({ratio['least']:.2f} to {ratio['most']:.2f})")
            cells.append(f"{part['elapsed'][report['automatic']]['median']:.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    medians = [case["forward"][report["automatic"]]["median"] for case in report["cases"]]
    lines += [
        "",
        f"Of the {len(medians)} medians of `{report['automatic']}`, forward, {sum(one <= 0.6 for one in medians)} are "
        f"at most 0.60; the largest is {max(medians):.2f}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="A feed-forward layer split into experts beside the dense one.")
    parser.add_argument("--quick", action="store_true", help="one small size, to see that it works")
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "results")
    options = parser.parse_args()
    cases = [
        Case(width, tokens, activation, threads)
        for threads in (1, 2)
        for activation in ("gelu_tanh", "silu")
        for width in WIDTHS
        for tokens in TOKENS
    ]
    if options.quick:
        cases = [Case(64, 128, activation, 1) for activation in ("gelu_tanh", "silu")]
    mixture(cases[0], "auto")(torch.zeros(4, cases[0].width))
    automatic = EXPERT_FFN.last
    torch.set_num_threads(1)
    report = {
        "command": f"OMP_WAIT_POLICY=PASSIVE python benchmarks/moe_cpu.py{' --quick' if options.quick else ''}",
        "date": time.strftime("%Y-%m-%d"),
        "environment": environment(),
        "automatic": automatic,
        "cases": [],
    }
    report["environment"].pop("torch threads", None)  # a column of the table
    for case in cases:
        report["cases"].append(measure(case, options.repetitions))
        print(f"{case}: done", file=sys.stderr, flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "moe_cpu.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    text = markdown(report)
    (options.out / "moe_cpu.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
