"""The kernels of vision models on one CPU core: beside plain torch, and how their time grows with the picture.

    make bench-vision     # or: python benchmarks/vision_kernels.py [--quick] [--repetitions COUNT] [--out FOLDER]

First three ways for a place to see others, from 256 to 9216 places: full attention, Swin's shifted windows, ViG's gated
linear attention in both directions, all on the same q, k and v. Then each kernel beside what one would write in torch
without it, which must give the same numbers. Every repetition runs all of a kind once, in turn; ratios are taken within
a repetition and the medians are shown. Time is that of the process. Growth is the slope of log time over log places,
from 1024 on: 1 is linear in the picture, 2 is quadratic. Writes benchmarks/results/vision_kernels.json,
docs/results_vision_kernels.md and docs/img/vision_kernels.png.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.linear_attention_cpu import faster_from, growth, time_beside
from outpace.evaluation.environment import environment
from outpace.kernels.attention.axial import axial_attention
from outpace.kernels.attention.channels import channel_attention
from outpace.kernels.attention.local_global import local_global_attention
from outpace.kernels.attention.windows import relative_bias, window_attention
from outpace.kernels.convolution.dynamic import dynamic_depthwise_conv
from outpace.kernels.convolution.recursive import recursive_gating
from outpace.kernels.feed_forward.axis_mix import axis_mix
from outpace.kernels.wavelets import dual_tree, haar
from outpace.kernels.wavelets.dual_tree import REACH, SMOOTH, SMOOTH_BACK
from outpace.models.vig import both_directions

ROOT = Path(__file__).resolve().parent.parent
HEADS, WIDTH, WINDOW, CHANNELS = 3, 64, 8, 64
MIXER_SIDES = (16, 24, 32, 48, 64, 96)
SIDES = (16, 32, 64, 96)
GROWTH_FROM = 1024
Run = Callable[[], Tensor]
FULL = "full attention"


def mixers(side: int) -> dict[str, Run]:
    """Ways for each of side x side places to see others, of one width; full attention comes first."""
    torch.manual_seed(side)
    q, k, v = torch.randn(3, 1, side, side, HEADS, WIDTH)
    table = torch.randn(HEADS, 2 * WINDOW - 1, 2 * WINDOW - 1)
    flat = [x.flatten(1, 2).transpose(1, 2).contiguous() for x in (q, k, v)]
    narrow = [x[..., : WIDTH // 2].contiguous() for x in flat[:2]]  # ViG's keys are half as wide
    decays = F.logsigmoid(torch.randn(2, 1, HEADS, side * side, WIDTH // 2)) / 16
    half = (WINDOW // 2, WINDOW // 2)
    return {
        FULL: lambda: F.scaled_dot_product_attention(*flat),
        "Swin's windows of 8": lambda: window_attention(
            q, k, v, window=(WINDOW, WINDOW), shift=half, bias=relative_bias(table, (WINDOW, WINDOW))
        ),
        "ViG, both directions": lambda: both_directions(*narrow, flat[2], *decays),
    }


def windows(side: int) -> tuple[Run, Run]:
    """Shifted windows with a bias; plainly: rolled, cut, all scores and their softmax written out."""
    q, k, v = torch.randn(3, 1, side, side, HEADS, WIDTH)
    bias = relative_bias(torch.randn(HEADS, 15, 15), (WINDOW, WINDOW))
    moved, count = WINDOW // 2, side // WINDOW
    axis = torch.arange(side)
    part = (axis >= side - moved).long()
    ids = cut((2 * part[:, None] + part)[None, :, :, None], count)[..., 0]

    def plain() -> Tensor:
        parts = [cut(x.roll((-moved, -moved), (1, 2)).flatten(3), count) for x in (q, k, v)]
        query, key, value = (x.unflatten(-1, (HEADS, WIDTH)).transpose(1, 2) for x in parts)
        scores = query @ key.mT * WIDTH**-0.5 + bias
        scores = scores.masked_fill((ids[:, :, None] != ids[:, None])[:, None], -torch.inf)
        out = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
        out = out.unflatten(1, (WINDOW, WINDOW)).unflatten(0, (1, count, count)).transpose(2, 3)
        return out.reshape(1, side, side, HEADS, WIDTH).roll((moved, moved), (1, 2))

    def ours() -> Tensor:
        return window_attention(q, k, v, window=(WINDOW, WINDOW), shift=(moved, moved), bias=bias)

    return ours, plain


def cut(x: Tensor, count: int) -> Tensor:
    """(B, Y, X, C) -> (B W, P, C)."""
    parts = x.unflatten(2, (count, WINDOW)).unflatten(1, (count, WINDOW))
    return parts.transpose(2, 3).flatten(3, 4).flatten(0, 2)


def channels(side: int) -> tuple[Run, Run]:
    """Channels that see channels; plainly: cosines as sums, a softmax, sums."""
    q, k, v = torch.randn(3, 1, HEADS, WIDTH, side * side)
    temperature = torch.rand(HEADS)

    def plain() -> Tensor:
        norms = q.norm(dim=-1)[..., :, None] * k.norm(dim=-1)[..., None, :]
        scores = torch.einsum("bhcn,bhdn->bhcd", q, k) / norms * temperature[:, None, None]
        return torch.einsum("bhcd,bhdn->bhcn", scores.softmax(-1), v)

    return lambda: channel_attention(q, k, v, temperature), plain


def groups(side: int) -> tuple[Run, Run]:
    """Squared scores within groups of 64 and a state of all; plainly: a weight for every pair of places."""
    q, k, q_all, k_all, v = torch.randn(5, 1, side * side, WIDTH)
    group = torch.arange(side * side) // 64

    def plain() -> Tensor:
        near = (q @ k.mT / 64).relu().square() * (group[:, None] == group)
        return (near + q_all @ k_all.mT / side**2) @ v

    return lambda: local_global_attention(q, k, v, group=64, q_global=q_all, k_global=k_all), plain


def rows(side: int) -> tuple[Run, Run]:
    """A dense layer along the rows of a grid; plainly: the axis moved to the end and back."""
    x, weight, bias = torch.randn(1, side, side, CHANNELS), torch.randn(32, side), torch.randn(32)
    return lambda: axis_mix(x, weight, bias, axis=1), lambda: F.linear(x.movedim(1, -1), weight, bias).movedim(-1, 1)


def filters(side: int) -> tuple[Run, Run]:
    """A filter of 5 x 5 for every place, 8 channels sharing one; plainly: neighbours gathered by unfold."""
    x, weight = torch.randn(1, CHANNELS, side, side), torch.randn(1, 8, 5, 5, side, side)

    def plain() -> Tensor:
        seen = F.unfold(x, 5, padding=2).unflatten(1, (8, CHANNELS // 8, 25)).unflatten(-1, (side, side))
        return (seen * weight.flatten(2, 3)[:, :, None]).sum(3).flatten(1, 2)

    return lambda: dynamic_depthwise_conv(x, weight), plain


def gating(side: int) -> tuple[Run, Run]:
    """Gates of 16, 32 and 64 channels, one after another; plainly: channels last, matrices as sums."""
    gates = [torch.randn(1, width, side, side) for width in (16, 32, 64)]
    mixes = [torch.randn(32, 16), torch.randn(64, 32)]
    first = torch.randn(1, 16, side, side)

    def plain() -> Tensor:
        y = first * gates[0]
        for gate, mix in zip(gates[1:], mixes, strict=True):
            y = torch.einsum("oc,bcyx->boyx", mix, y) * gate
        return y

    return lambda: recursive_gating(first, gates, [(mix, None) for mix in mixes]), plain


def slices(side: int) -> tuple[Run, Run]:
    """Rows that see rows by their means; plainly: means, scores, their softmax and the sums as einsums."""
    q, k, v = torch.randn(3, 1, HEADS, side, side, WIDTH)

    def plain() -> Tensor:
        query, key, value = (torch.einsum("bhyxd->bhyd", x) / side for x in (q, k, v))
        weights = (torch.einsum("bhyd,bhzd->bhyz", query, key) * WIDTH**-0.5).softmax(-1)
        return torch.einsum("bhyz,bhzd->bhyd", weights, value)

    return lambda: axial_attention(q, k, v, axis=0), plain


def squares(side: int) -> tuple[Run, Run]:
    """Haar's wavelets; plainly: a convolution with four filters of 2 x 2 and stride 2."""
    x = torch.randn(1, CHANNELS, side, side)
    signs = torch.tensor([[1.0, 1, 1, 1], [1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]]) / 2
    weight = signs.view(4, 1, 2, 2).repeat(CHANNELS, 1, 1, 1)

    def plain() -> Tensor:
        bands = F.conv2d(x, weight, stride=2, groups=CHANNELS)
        return bands.unflatten(1, (CHANNELS, 4)).transpose(1, 2).flatten(1, 2)

    return lambda: haar(x), plain


def edges(side: int) -> tuple[Run, Run]:
    """The dual-tree wavelets of 8 channels; plainly: four filters of 19 x 19, one for each pair of directions."""
    x = torch.randn(1, 8, side, side)
    low, high = torch.zeros(2, 2 * REACH + 1)
    for taps, half, sign in ((low, SMOOTH, 1), (high, SMOOTH_BACK, -1)):
        for place, value in enumerate(half):
            taps[REACH + place] = taps[REACH - place] = value * sign**place
    weight = torch.stack([torch.outer(down, across) for across in (low, high) for down in (low, high)])[:, None]
    place = torch.arange(-REACH, side + REACH) % (2 * side)
    place = torch.where(place >= side, 2 * side - 1 - place, place)

    def plain() -> Tensor:
        mirrored = x[0, :, None].index_select(2, place).index_select(3, place)
        smooth, flat, steep, diagonal = F.conv2d(mirrored, weight).unbind(1)
        bands = []
        for part in (flat, diagonal, steep):
            a, b, c, d = (part[:, i::2, j::2] * 0.5**0.5 for i in (0, 1) for j in (0, 1))
            bands.append((torch.complex(a - d, b + c), torch.complex(a + d, b - c)))
        (d15, d165), (d45, d135), (d75, d105) = bands
        return torch.cat([smooth.flatten(), flat_bands(torch.stack([d15, d45, d75, d105, d135, d165], 1))])

    def ours() -> Tensor:
        smooth, bands = dual_tree(x)
        return torch.cat([smooth.flatten(), flat_bands(bands)])

    return ours, plain


def flat_bands(bands: Tensor) -> Tensor:
    """Real and imaginary parts in one row."""
    return torch.view_as_real(bands).flatten()


KERNELS: dict[str, Callable[[int], tuple[Run, Run]]] = {
    "window attention": windows,
    "channel attention": channels,
    "local-global attention": groups,
    "axis mixing": rows,
    "dynamic depthwise convolution": filters,
    "recursive gating": gating,
    "axial attention": slices,
    "Haar wavelets": squares,
    "dual-tree wavelets": edges,
}
"""Name -> what makes, for a grid of side x side, the kernel and the plain way on the same numbers."""


def measure_mixers(side: int, repetitions: int) -> dict[str, Any]:
    """Every mixer on one grid."""
    return {"tokens": side * side, **time_beside(mixers(side), FULL, repetitions)}


def measure_kernel(name: str, side: int, repetitions: int) -> dict[str, Any]:
    """A kernel and the plain way on one grid; both must agree."""
    torch.manual_seed(side)
    ours, plain = KERNELS[name](side)
    torch.testing.assert_close(ours(), plain(), rtol=1e-3, atol=1e-3)
    return {"tokens": side * side, **time_beside({"plain": plain, "ours": ours}, "plain", repetitions)}


def markdown(report: dict[str, Any]) -> str:
    """The report as a page."""
    lines = [
        "# Kernels of the vision models: speed and growth",
        "",
        f"Written by `{report['command']}`; nothing here is typed in. Float32, forward, one picture, one CPU thread;",
        "process time in ms, medians of paired ratios. Growth: 1 is linear in the number of places, 2 quadratic.",
        "",
        "![Time over the number of places, and the kernels beside plain torch](img/vision_kernels.png)",
        "",
        "## Full attention, windows and gated linear attention",
        "",
        f"{HEADS} heads of {WIDTH}; in brackets how many times faster than full attention "
        "(`F.scaled_dot_product_attention`).",
        "",
    ]
    mixing = report["mixers"]
    names = list(mixing["growth"])
    lines += [f"| places | {' | '.join(names)} |", f"| ---: |{' ---: |' * len(names)}"]
    for case in mixing["cases"]:
        cells = [f"{1e3 * case['seconds'][name]:.2f} ({case['speed_up'][name]:.2f})" for name in names]
        lines.append(f"| {case['tokens']} | {' | '.join(cells)} |")
    lines.append(f"| growth | {' | '.join(f'{slope:.2f}' for slope in mixing['growth'].values())} |")
    lines += [""]
    for name, first in mixing["faster_from"].items():
        lines.append(f"- {name}: " + (f"faster than full attention from {first} places on." if first else
                     "not faster than full attention throughout these sizes."))  # fmt: skip
    lines += [
        "",
        "## Each kernel beside plain torch",
        "",
        "The kernel's time, and in brackets how many times faster than what one would write without it; both give the",
        "same numbers, which the run checks. Near 1, a kernel saves code and adds checks of its inputs; these show on",
        "the smallest grids.",
        "",
    ]
    tokens = [case["tokens"] for case in next(iter(report["kernels"].values()))["cases"]]
    lines += [f"| kernel | {' | '.join(f'{n} places' for n in tokens)} | growth | plain way's |"]
    lines += [f"| --- |{' ---: |' * (len(tokens) + 2)}"]
    for name, found in report["kernels"].items():
        cells = [f"{1e3 * case['seconds']['ours']:.2f} ({case['speed_up']['ours']:.2f})" for case in found["cases"]]
        lines.append(
            f"| {name} | {' | '.join(cells)} | {found['growth']['ours']:.2f} | {found['growth']['plain']:.2f} |"
        )
    lines += ["", "The plain ways:", ""]
    for name, make in KERNELS.items():
        _, _, way = (make.__doc__ or "").partition("plainly: ")
        lines.append(f"- {name}: {way}")
    lines += ["", *(f"- {name}: {value}" for name, value in report["environment"].items())]
    return "\n".join(lines) + "\n"


def draw(report: dict[str, Any], path: Path) -> None:
    """Times of the mixers and of the kernels beside the plain ways, over the number of places."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    mixing = report["mixers"]
    places = [case["tokens"] for case in mixing["cases"]]
    for name, slope in mixing["growth"].items():
        times = [1e3 * case["seconds"][name] for case in mixing["cases"]]
        left.loglog(places, times, marker="o", label=f"{name}: growth {slope:.2f}")
    left.set(title="A place sees others", xlabel="places", ylabel="process time, ms")
    left.set_xticks(places, [str(n) for n in places])
    left.minorticks_off()
    left.legend()
    for name, found in report["kernels"].items():
        ratios = [case["speed_up"]["ours"] for case in found["cases"]]
        right.loglog([case["tokens"] for case in found["cases"]], ratios, marker="o", label=name)
    right.axhline(1, color="black", linewidth=0.8)
    places = [case["tokens"] for case in next(iter(report["kernels"].values()))["cases"]]
    right.set(title="Kernels beside plain torch", xlabel="places", ylabel="times faster than plain torch")
    right.set_xticks(places, [str(n) for n in places])
    right.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    right.xaxis.minorticks_off()
    right.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description="Kernels of vision models beside plain torch, on one CPU core.")
    parser.add_argument("--quick", action="store_true", help="two small grids, to see that it works")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--out", type=Path, default=ROOT)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    report: dict[str, Any] = {
        "command": f"make bench-vision{' --quick' if asked.quick else ''}",
        "date": time.strftime("%Y-%m-%d"),
        "environment": environment(),
        "kernels": {},
    }
    with torch.no_grad():
        cases = [measure_mixers(side, asked.repetitions) for side in ((8, 16) if asked.quick else MIXER_SIDES)]
        slopes = {name: growth(cases, name, GROWTH_FROM) for name in cases[0]["seconds"]}
        first = {name: faster_from(cases, name) for name in list(slopes)[1:]}
        report["mixers"] = {"cases": cases, "growth": slopes, "faster_from": first}
        for name in KERNELS:
            cases = [measure_kernel(name, side, asked.repetitions) for side in ((8, 16) if asked.quick else SIDES)]
            slopes = {way: growth(cases, way, GROWTH_FROM) for way in ("ours", "plain")}
            report["kernels"][name] = {"cases": cases, "growth": slopes}
            print(f"{name}: done", file=sys.stderr, flush=True)
    results = asked.out / "benchmarks" / "results" / "vision_kernels.json"
    page = asked.out / "docs" / "results_vision_kernels.md"
    for path, text in ((results, json.dumps(report, indent=1) + "\n"), (page, markdown(report))):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    draw(report, asked.out / "docs" / "img" / "vision_kernels.png")
    print(markdown(report))


if __name__ == "__main__":
    main()
