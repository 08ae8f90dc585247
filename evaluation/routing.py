"""What the routers of a mixture chose: of every request a table, of a contender their mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def merge(records: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The records of a contender's requests as one; None where there are none.

    Args:
        records: {"layers": names, "choices": [layer][step][expert], the share of a step's choices that each got; None
            for a step at which the layer did not run}.

    Returns: "layers"; "load": [layer][expert], how often each was chosen, 1 where all are alike; "unequal":
        [layer][step], the share of the choices that would have to change for all to be chosen alike, 0 to 1; None where
        it did not run.
    """
    if not records:
        return None
    layers = list(dict.fromkeys(name for record in records for name in record["layers"]))
    load, unequal = [], []
    for name in layers:
        found = [record["choices"][record["layers"].index(name)] for record in records if name in record["layers"]]
        steps = [[choices for choices in at_step if choices] for at_step in zip(*found, strict=True)]
        means = [np.mean(choices, axis=0) if choices else None for choices in steps]
        asked = [choices_E for choices_E in means if choices_E is not None]
        load.append((np.mean(asked, axis=0) * len(asked[0])).round(4).tolist())
        unequal.append([None if e is None else round(float(np.abs(e - 1 / len(e)).sum() / 2), 4) for e in means])
    return {"layers": layers, "load": load, "unequal": unequal}
