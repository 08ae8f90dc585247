"""A paper's claim tried in small: the same task for every arm and seed, and a verdict from the pairs.

A trial never asserts that a paper is right: it writes what happened to `results/NAME.json`, which the card shows.
"""

from __future__ import annotations

import itertools
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...errors import ConfigError
from ...files import write_text

RESULTS = Path(__file__).parent / "results"
LEAST_SEEDS, LEVEL = 5, 0.05
"""Pairs without which nothing is shown, and the largest chance that still shows something."""
SHOWN, NOT_REPRODUCED, TOO_FEW = "shown", "not reproduced at this scale", "too few seeds to tell"


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """A claim, the arms that are compared, and how one of them is run."""

    claim: str
    """What should come out, as a sentence."""
    measure: str
    """What is measured, with its unit."""
    higher_is_better: bool
    """Which way the measure points."""
    arms: Mapping[str, Callable[[int], float]]
    """Name -> the measure for a seed. The first is the paper's."""
    against: tuple[str, ...]
    """The arms that the first must be better than; the others are shown beside them."""
    task: str
    """What was trained on, for how long, in one line."""


def run_trial(
    trial: Trial,
    *,
    seeds: int,
    known: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = lambda _line: None,
) -> dict[str, Any]:
    """Every arm on every seed, and what that says of the claim (`verdict`).

    Args:
        seeds: how many, from 0.
        known: results of the same trial, whose seeds are taken as they are and not run again.

    Raises: ConfigError: fewer than one seed, or results of another trial.
    """
    if seeds < 1:
        raise ConfigError(f"a trial needs at least one seed, not {seeds}")
    started, scores = time.process_time(), {arm: [] for arm in trial.arms}
    runs = []
    if known is not None:
        same = (known["claim"], known["task"], list(known["scores"])) == (trial.claim, trial.task, list(trial.arms))
        if not same:
            raise ConfigError(
                "these results are of another trial: its claim, task or arms changed; run all seeds again"
            )
        scores, runs = {arm: list(values) for arm, values in known["scores"].items()}, list(known["runs"])
    done = len(next(iter(scores.values())))
    for seed in range(done, seeds):
        for arm, run in trial.arms.items():
            scores[arm].append(float(run(seed)))
            say(f"seed {seed}: {arm} {scores[arm][-1]:.4g}")
    if done < seeds:
        runs.append(
            {
                "seeds": list(range(done, seeds)),
                "process_seconds": round(time.process_time() - started, 1),
                "torch": torch.__version__,
                "machine": platform.machine(),
                "threads": torch.get_num_threads(),
            }
        )
    sign = 1 if trial.higher_is_better else -1
    first = scores[next(iter(scores))]
    gains = {arm: [sign * (a - b) for a, b in zip(first, scores[arm], strict=True)] for arm in trial.against}
    results = {
        "claim": trial.claim,
        "measure": trial.measure,
        "higher_is_better": trial.higher_is_better,
        "task": trial.task,
        "seeds": max(done, seeds),
        "scores": scores,
        "gains": gains,
        "p": {arm: chance(values) for arm, values in gains.items()},
        "runs": runs,
    }
    return {**results, "verdict": verdict(results)}


def chance(gains: Sequence[float]) -> float:
    """How often the mean gain would be at least this if every pair were as likely to fall the other way (one-sided).

    All 2^n ways are counted, so that the least that n seeds can give is 1 / 2^n: 1/32 with five.

    >>> chance([0.1, 0.2, 0.1, 0.3, 0.2]), chance([0.1, 0.2, -0.1, 0.3, 0.2])
    (0.03125, 0.0625)
    """
    total, ways = sum(gains), list(itertools.product((1, -1), repeat=len(gains)))
    small = 1e-12 * sum(map(abs, gains))
    return sum(sum(s * g for s, g in zip(way, gains, strict=True)) >= total - small for way in ways) / len(ways)


def verdict(results: Mapping[str, Any]) -> str:
    """Whether the claim showed: against each arm, chance would give the gain in at most one case in twenty.

    No correction for several arms: all of them have to be beaten. Fewer than five seeds can show nothing; but one that
    is no gain is enough to say that five would not show it either, since all five have to be gains then.
    """
    if results["seeds"] < LEAST_SEEDS:
        beaten = all(gain > 0 for gains in results["gains"].values() for gain in gains)
        return TOO_FEW if beaten else NOT_REPRODUCED
    return SHOWN if all(chance(gains) <= LEVEL for gains in results["gains"].values()) else NOT_REPRODUCED


def margins(results: Mapping[str, Any]) -> dict[str, float]:
    """The mean gain over each arm as a share of that arm's mean score."""
    return {
        arm: statistics.mean(gains) / (abs(statistics.mean(results["scores"][arm])) or 1.0)
        for arm, gains in results["gains"].items()
    }


def save_results(name: str, results: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Write what a trial found to where the cards read it."""
    path = folder / f"{name}.json"
    write_text(path, json.dumps(results, indent=2) + "\n")
    return path


def read_results(name: str, folder: Path = RESULTS) -> dict[str, Any] | None:
    """What the trial of a model found, or None where it was not run."""
    path = folder / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def in_words(results: dict[str, Any]) -> str:
    """The verdict and its numbers, in one paragraph."""
    scores = "; ".join(
        f"{arm} {statistics.mean(values):.4g} ({', '.join(f'{value:.4g}' for value in values)})"
        for arm, values in results["scores"].items()
    )
    gained = "; ".join(
        f"over {arm} {margin:+.1%}, p = {results['p'][arm]:.3g}" for arm, margin in margins(results).items()
    )
    better = "higher" if results["higher_is_better"] else "lower"
    count = f"{results['seeds']} seed{'s' * (results['seeds'] != 1)}"
    return (
        f"{results['verdict']}: {results['claim']}. {results['measure']} ({better} is better), mean of {count}: "
        f"{scores}. Gain {gained} (paired, signs flipped, one-sided)."
    )
