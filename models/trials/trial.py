"""A paper's claim tried in small: the same task for every arm and seed, and a verdict from the pairs.

A trial never asserts that a paper is right: it writes what happened to `results/NAME.json`, which the card shows.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...errors import ConfigError

RESULTS = Path(__file__).parent / "results"


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


def run_trial(trial: Trial, *, seeds: int, say: Callable[[str], None] = lambda _line: None) -> dict[str, Any]:
    """Every arm on every seed, and whether the claim showed.

    It showed where the first arm was better than each arm it is held against in every seed.

    Raises: ConfigError: fewer than one seed.
    """
    if seeds < 1:
        raise ConfigError(f"a trial needs at least one seed, not {seeds}")
    started, scores = time.process_time(), {arm: [] for arm in trial.arms}
    for seed in range(seeds):
        for arm, run in trial.arms.items():
            scores[arm].append(float(run(seed)))
            say(f"seed {seed}: {arm} {scores[arm][-1]:.4g}")
    sign = 1 if trial.higher_is_better else -1
    first = scores[next(iter(scores))]
    gains = {arm: [sign * (a - b) for a, b in zip(first, scores[arm], strict=True)] for arm in trial.against}
    return {
        "claim": trial.claim,
        "measure": trial.measure,
        "higher_is_better": trial.higher_is_better,
        "task": trial.task,
        "seeds": seeds,
        "scores": scores,
        "gains": gains,
        "shown": all(gain > 0 for one in gains.values() for gain in one),
        "process_seconds": round(time.process_time() - started, 1),
        "environment": {"torch": torch.__version__, "machine": platform.machine(), "threads": torch.get_num_threads()},
    }


def save_results(name: str, results: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Write what a trial found to where the cards read it."""
    path = folder / f"{name}.json"
    path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
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
    verdict = "shown" if results["shown"] else "not reproduced at this scale"
    better = "higher" if results["higher_is_better"] else "lower"
    count = f"{results['seeds']} seed{'s' * (results['seeds'] != 1)}"
    return f"{verdict}: {results['claim']}. {results['measure']} ({better} is better), mean of {count}: {scores}."
