"""The curves of sparse attention; only where they are named, since short attention has nothing to leave out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from outpace.accel import AdaSpa, GatedTaylor
from outpace.cli.contenders.curve import curve, fewer, ours, with_steps
from outpace.cli.contenders.labels import kind_of, label_of

if TYPE_CHECKING:
    from outpace.accel import Method
    from outpace.cli.contenders.bench import Bench
    from outpace.evaluation import Contender

RECALLS = (0.8, 0.9, 0.95, 0.98, 0.99)
SPARSITIES = (0.5, 0.6, 0.7, 0.8, 0.9)
SLIGHTLY = (1.15, 1.25, 1.4, 1.55)
"""How many times fewer steps are tried beside sparse attention, which alone gains less than skipped steps do."""

SPEEDUPS = (1.25, 1.5, 2.0, 2.5, 3.0)
"""Where curves are compared when attention is sparse, for the same reason."""


def points(
    bench: Bench, name: str, setting: str, values: Sequence[float], make: Callable[[float], Method], *others: Method
) -> list[Contender]:
    """One contender for each of `values`, with what `make` gives for it on top of `others`."""
    made = []
    for value in values:
        methods = (*others, make(value))
        words = label_of(methods, varied=("adaspa", setting))
        kind = kind_of(methods)
        made.append(ours(bench, f"{name}-{value:g}", label_of(methods), kind, words, bench.steps, *methods))
    return made


@curve("adaspa", named=True)
def adaspa(bench: Bench) -> list[Contender]:
    """Sparse attention at several recalls."""
    return points(bench, "adaspa", "recall", RECALLS, lambda r: AdaSpa(recall=r))


@curve("adaspa-sparsity", named=True)
def adaspa_sparsity(bench: Bench) -> list[Contender]:
    """Sparse attention by the paper's rule for what is kept, with the rest as we run it."""
    return points(bench, "adaspa-sparsity", "sparsity", SPARSITIES, lambda s: AdaSpa(sparsity=s))


@curve("adaspa-paper", named=True)
def adaspa_paper(bench: Bench) -> list[Contender]:
    """Sparse attention as its authors run it."""
    made = points(bench, "adaspa-paper", "sparsity", SPARSITIES, AdaSpa.paper)
    return [
        replace(c, label=f"AdaSpa, paper {s:g}", curve="AdaSpa, paper") for c, s in zip(made, SPARSITIES, strict=True)
    ]


@curve("gated+adaspa", named=True)
def gated_adaspa(bench: Bench) -> list[Contender]:
    """Our gate with its default threshold, with sparse attention at several recalls."""
    return points(bench, "gated+adaspa", "recall", RECALLS, lambda r: AdaSpa(recall=r), GatedTaylor())


@curve("fewer-steps-slightly", named=True)
def fewer_steps_slightly(bench: Bench) -> list[Contender]:
    """Some steps fewer, where that is all that sparse attention gains."""
    return [with_steps(bench, n) for n in fewer(bench.steps, SLIGHTLY)]
