"""Solver and every preset, tried anew on all that is accepted: `make solver-table` writes docs/solver_table.md.

What is tried and held to is in tests/accel/test_solver_pipelines.py (pipelines of diffusers) and
tests/accel/test_solver_specimens.py (every class of transformer under every scheduler that pipelines around it name).
What is said of a class is stamped with its family's data: a family that was changed since has to be tried again.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RECORD, PAGE = ROOT / "docs" / "solver_table.json", ROOT / "docs" / "solver_table.md"
COLUMNS = ("Solver()", "UniPC", "careful", "balanced", "fast", "paper")
INTRO = """# Another solver, on every pipeline and transformer

Written by `make solver-table`, which tries all of it (torch {torch}, diffusers {diffusers}). "Runs": a call goes
through, every step was the solver's, and its noise levels are those of the pipeline's own scheduler to 1e-6. "Refused":
`accelerate` says so before anything is touched. The presets are those of `outpace methods`; they run everywhere.

## Pipelines of diffusers
Around tiny transformers of random weights. "Steps for itself": every token has a noise level of its own there, which
neither solver knows, so the scheduler's own step is used and the summary says so."""
CLASSES = """
## Every accepted transformer
Under each scheduler that pipelines of diffusers around it name, or under the flow's where none does: {classes} classes,
{pairs} pairs."""


REFUSED = "refused: "


def table(first: str, rows: list[tuple[str, str, list[str]]]) -> list[str]:
    """Lines of a table with a column for each setting, and what is refused in words below it."""
    lines = ["", f"| {first} | Scheduler | {' | '.join(COLUMNS)} |", f"|{'---|' * (2 + len(COLUMNS))}"]
    reasons: list[str] = []
    for name, scheduler, words in rows:
        reasons += [reason for reason in dict.fromkeys(words) if REFUSED in reason and reason not in reasons]
        said = [f"refused ({reasons.index(word) + 1})" if word in reasons else word for word in words]
        lines.append(f"| {name} | {scheduler} | {' | '.join(said)} |")
    return [*lines, "", *(f"{n}. {reason.removeprefix(REFUSED)}" for n, reason in enumerate(reasons, start=1))]


def page(record: dict[str, Any]) -> str:
    """docs/solver_table.md, of what was found; schedulers of which the same is to be said share a line."""
    lines = [INTRO.format(**record["versions"])]
    lines += table("Pipeline", [(name, one["scheduler"], one["found"]) for name, one in record["pipelines"].items()])
    rows: list[tuple[str, str, list[str]]] = []
    for name, one in record["classes"].items():
        alike: dict[tuple[str, ...], list[str]] = {}
        for scheduler, found in one["found"].items():
            alike.setdefault(tuple(found), []).append(scheduler)
        rows += [(name, ", ".join(schedulers), list(found)) for found, schedulers in alike.items()]
    pairs = sum(len(one["found"]) for one in record["classes"].values())
    lines += [CLASSES.format(classes=len(record["classes"]), pairs=pairs), *table("Transformer", rows)]
    return "\n".join(lines) + "\n"


def main() -> None:
    for folder in ("docs", "tests", "tests/accel"):
        sys.path.insert(0, str(ROOT / folder))
    import diffusers
    import torch
    from support import stamp

    from outpace.accel import FAMILIES

    pipelines, specimens = import_module("test_solver_pipelines"), import_module("test_solver_specimens")
    torch.set_num_threads(1)
    record: dict[str, Any] = {
        "versions": {"torch": torch.__version__.split("+")[0], "diffusers": diffusers.__version__},
        "pipelines": {},
        "classes": {},
    }
    stamps = {name: stamp(family) for _, family in FAMILIES.items() for name in family.transformers}
    for name in pipelines.PIPELINES:
        record["pipelines"][name] = {
            "scheduler": pipelines.scheduler_of(name),
            "found": pipelines.found_on(name),
        }
        print(name, flush=True)
    for cls in specimens.ACCEPTED:
        record["classes"][cls] = {"data": stamps[cls], "found": specimens.found_under(cls)}
        print(cls, flush=True)
    RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(record), encoding="utf-8")


if __name__ == "__main__":
    main()
