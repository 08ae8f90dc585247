"""Contenders that are asked for one by one: `outpace compare --method adaspa:recall=0.9 --method threshold=0.2+adaspa`.

Those that differ in one setting only become the points of one curve.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from outpace.cli.contenders.curve import ours
from outpace.cli.contenders.labels import file_name, kind_of, label_of, shared_settings, varied_settings
from outpace.cli.options.method import parse_combination

if TYPE_CHECKING:
    from outpace.cli.contenders.bench import Bench
    from outpace.evaluation import Contender


def asked_contenders(bench: Bench, texts: Sequence[str], steps: int) -> list[Contender]:
    """One contender for each of `texts`, timed and shown whatever its speed-up.

    Raises: as `parse_combination`.
    """
    asked = {text.strip(): parse_combination(text) for text in texts}
    shared = shared_settings(list(asked.values()))
    curves = varied_settings(list(asked.values()))
    return [
        ours(
            bench,
            file_name(text),
            label_of(methods, without=shared),
            kind_of(methods),
            label_of(methods, without=shared, varied=varied),
            steps,
            *methods,
            shown=True,
        )
        for (text, methods), varied in zip(asked.items(), curves, strict=True)
    ]
