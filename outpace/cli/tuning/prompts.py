"""Which prompts of `outpace tune` choose and which certify, and whether there are enough of them."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from outpace.errors import InputError

if TYPE_CHECKING:
    from outpace.evaluation import Request
    from outpace.pipelines.load import Loaded

HELD_OUT_SEED = 100_000
"""Seeds of held-out requests start this much later, so that no noise is met twice."""


def split_lines(texts: list[str], calibration: int, seed: int) -> tuple[list[str], list[str]]:
    """Prompts of a file, shuffled: at most `calibration` and a quarter of them to choose by, the rest to certify on.

    Shuffled, because the promise is about prompts drawn like the held-out ones, and files tend to be sorted.
    """
    mixed = list(texts)
    random.Random(seed).shuffle(mixed)
    count = max(1, min(calibration, len(mixed) // 4))
    return mixed[:count], mixed[count:]


def check_enough(held_out: int, risk: float, alpha: float) -> None:
    """Raises: InputError where no outcome on so few held-out prompts could certify anything, before time is spent."""
    from outpace.evaluation.tune.certify import allowed_misses, requests_needed

    if allowed_misses(held_out, risk, alpha) < 0:
        needed = requests_needed(0.0, risk, alpha)
        raise InputError(
            f"{held_out} held-out prompts can certify nothing: even if none missed the target, {needed} are needed for "
            f"--risk {risk:g} and --alpha {alpha:g}; give more --prompts, or raise one of the two"
        )


def requests_of(
    loaded: Loaded, wanted: int | list[str], calibration: int, seed: int
) -> tuple[list[Request], list[Request]]:
    """Requests to choose by and requests to certify on; no seed is in both.

    Raises: InputError where prompts are counted but the pipeline brings none.
    """
    from outpace.evaluation import Request
    from outpace.pipelines.load import read_prompts

    if isinstance(wanted, int):
        if loaded.pocket is None:
            raise InputError(
                f"'{loaded.source.name}' brings no prompts of its own; name a file with one a line: --prompts FILE"
            )
        choosing, certifying = (
            loaded.pocket.prompts(calibration, "calibration"),
            loaded.pocket.prompts(wanted, "held_out"),
        )
    else:
        choosing, certifying = (read_prompts(loaded, part) for part in split_lines(wanted, calibration, seed))
    first = [Request(index=i, prompt=text, seed=seed + i) for i, text in enumerate(choosing)]
    second = [
        Request(index=len(first) + i, prompt=text, seed=seed + HELD_OUT_SEED + i) for i, text in enumerate(certifying)
    ]
    return first, second
