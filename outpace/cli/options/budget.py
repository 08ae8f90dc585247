"""`--budget` on the command line: how long something may take."""

from __future__ import annotations

import re

from outpace.errors import InputError

_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def read_budget(text: str) -> float:
    """The seconds that `text` spells.

    >>> read_budget("20m"), read_budget("90"), read_budget("1.5h")
    (1200.0, 90.0, 5400.0)

    Raises: InputError where it is no positive time.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh]?)(?:in|ec)?\s*", text)
    seconds = float(found[1]) * _SECONDS[found[2]] if found else 0.0
    if not 0 < seconds < 1e9:
        raise InputError(f"--budget '{text}' is no time; write it as 90s, 20m or 1.5h")
    return seconds
