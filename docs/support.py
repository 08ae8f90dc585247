"""What works on which transformer, tried anew: `make support` writes docs/support.json, from which `make readme` makes
docs/families.md.

With DIFFUSERS_TESTS=CHECKOUT the pipelines of diffusers' own tests are tried too; without, what is known of them stays.
Every class is tried on a tiny model of it, and what is said of it is stamped with its family's data: a family that was
changed since has to be tried again.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "docs" / "support.json"
ALL = "the same inputs again, all forecast, give the same result"
SOME = "the same inputs again, some samples forecast, give the same result"
WORDS = {"sparse": "sparse attention", "bricks": "bricks", "experts": "experts"}
INTRO = """# Supported transformers

Written by `make readme` from docs/support.json, which `make support` makes by trying all of it (torch {torch},
diffusers {diffusers}): {classes} classes, each on a tiny random model. A class of your own takes
[ten lines](adding_a_family.md).

Forecast: the same inputs again, all blocks but the first left out, give the same result, in every stream. Samples
apart: so they do where only some samples of a batch are forecast; a dash where a call is one sample, or samples are
decided together. Sparse attention, bricks and experts: AdaSpa and BrickSkipping did something in a run of the tiny
model, and its feed-forward layers can become experts."""
SPARSE = {"recall": 0.5, "block": 16, "min_tokens": 1, "min_gain": 0.0}
"""Settings with which attention of so few tokens is searched at all."""


def stamp(family: Any) -> str:
    """Eight letters that are others where a family's data are."""

    def plain(value: Any) -> Any:
        if callable(value):
            return getattr(value, "__qualname__", "")
        if isinstance(value, tuple):
            return [plain(item) for item in value]
        if hasattr(value, "items"):
            return {key: plain(item) for key, item in value.items()}
        if hasattr(value, "__dataclass_fields__"):
            return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
        return value

    return hashlib.sha256(json.dumps(plain(family), sort_keys=True).encode()).hexdigest()[:8]


def try_class(name: str) -> dict[str, Any]:
    """What works on a tiny model of one class."""
    from outpace.accel import AdaSpa, BrickSkipping, find_family
    from outpace.accel.check import check_specimen
    from outpace.accel.specimens import SPECIMENS

    specimen = SPECIMENS[name]
    family = find_family(specimen.build())
    found = check_specimen(specimen)
    last = len(family.blocks(specimen.build())) - 1
    return {
        "family": family.name,
        "data": stamp(family),
        "check": {one.tried: one.passed for one in found},
        "sparse": ran(specimen, AdaSpa(**SPARSE)),
        "bricks": ran(specimen, BrickSkipping(schedule=f"1-{last}:0.5")),
        "experts": experts(specimen),
    }


def ran(specimen: Any, method: Any) -> str:
    """A yes where a method left something out in a run of four steps on a tiny model; else why not."""
    import torch

    from outpace.accel.apply import Acceleration
    from outpace.accel.check import Steps

    model, scheduler = specimen.build(), Steps()
    target = SimpleNamespace(transformer=model, scheduler=scheduler)
    try:
        with torch.no_grad(), Acceleration(target, [method]) as run:
            scheduler.set_timesteps(4)
            for _ in range(4):
                args, kwargs = specimen.inputs((0, 1), model)
                model(*args, **kwargs)
                scheduler.step()
            calls = run.trace.calls
    except Exception as error:  # refused, or wrong: either way it does not work, and the table says why
        return " ".join(str(error).split())[:160]
    left_out = any(call.sparse or any(call.skipped) for call in calls)
    return "yes" if left_out else "nothing happened on the tiny model"


def experts(specimen: Any) -> str:
    """A yes where the feed-forward layers can become experts; else why not."""
    from outpace.accel.experts.sites import find_sites
    from outpace.errors import OutpaceError

    try:
        return "yes" if find_sites(specimen.build()) else "no feed-forward layer that is known"
    except OutpaceError as error:
        return " ".join(str(error).split())[:160]


def try_fixtures() -> dict[str, Any] | None:
    """What came of the pipelines of diffusers' own tests; None where no checkout is named."""
    sys.path.insert(0, str(ROOT / "tests" / "fixtures"))
    found, trials = import_module("found"), import_module("trials")

    fixtures, missing = found.fixtures()
    if not fixtures:
        return None
    tried = []
    for fixture in fixtures:
        tried.append(asdict(trials.try_fixture(fixture)))
        print(fixture.id, tried[-1]["wrong"] or "", flush=True)
    return {"tried": tried, "missing": missing}


def page() -> str:
    """docs/families.md: what was tried on which class, and what came of it."""
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    tried = (record["fixtures"] or {"tried": []})["tried"]
    reasons: dict[str, list[str]] = {}
    rows = []
    for name, one in sorted(record["classes"].items(), key=lambda item: (item[1]["family"], item[0])):
        cells = [sign(one["check"][ALL]), sign(one["check"][SOME])]
        for what in ("sparse", "bricks", "experts"):
            cells.append("yes" if one[what] == "yes" else "no")
            if one[what] != "yes":
                reasons.setdefault(f"{WORDS[what]}: {one[what].replace(name, 'the class')}", []).append(name)
        mine = [got for got in tried if got["transformer"] == name]
        passed = sorted({short(got["pipeline"]) for got in mine if right(got)})
        rows.append(f"| {one['family']} | `{name}` | {' | '.join(cells)} | {', '.join(passed)} |")
    heads = (
        "| family | transformer | forecast | samples apart | sparse attention | bricks | experts | pipelines tried |"
    )
    parts = [
        INTRO.format(**record["versions"], classes=len(rows)),
        counts(tried),
        "\n".join([heads, "| --- " * 8 + "|", *rows]),
        "Where it says no, or why less than all:",
        "\n".join(f"- {why} ({', '.join(names)})" for why, names in sorted(reasons.items())),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def right(got: dict[str, Any]) -> bool:
    """Whether everything that was tried on a fixture was right."""
    return not (got["refused"] or got["not_run"] or got["wrong"])


def sign(passed: bool | None) -> str:
    """What came of one trial, in a word; a dash where the question does not arise."""
    return {True: "yes", False: "no", None: "-"}[passed]


def short(pipeline: str) -> str:
    """The name of a pipeline without its last word."""
    return pipeline.removesuffix("Pipeline")


def counts(tried: Sequence[dict[str, Any]]) -> str:
    """What came of the pipelines of diffusers' own tests, in some sentences."""
    if not tried:
        return "The pipelines of diffusers' own tests have not been tried yet."
    ran = [one for one in tried if not one["refused"] and not one["not_run"]]
    wrong = [f"`{one['fixture']}` ({'; '.join(one['wrong'])})" for one in ran if one["wrong"]]
    unable = "; ".join(f"`{one['fixture']}`: {one['not_run'][:80]}" for one in tried if one["not_run"])
    said = (
        f"Of {len(tried)} pipelines in diffusers' own tests, which have their name in the last column, {len(ran)} were "
        f"accelerated and {len(ran) - len(wrong)} passed everything: bit-identical at threshold 0 in every call, "
        "restored, forecast, and no exception at `speedup=2` and with every preset. "
        "Where a fixture has a single block it was given three. "
        f"{sum(bool(one['refused']) for one in tried)} were refused, and "
        f"{sum(bool(one['not_run']) for one in tried)} did not run plain where this was written"
    )
    return said + (f" ({unable})." if unable else ".") + (f" Wrong were: {'; '.join(wrong)}." if wrong else "")


def main() -> None:
    import diffusers
    import torch

    from outpace.accel import FAMILIES

    torch.set_num_threads(1)
    record: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.is_file() else {"fixtures": None}
    classes = {}
    for _, family in FAMILIES.items():
        for name in family.transformers:
            classes[name] = try_class(name)
            print(name, flush=True)
    record["versions"] = {"torch": torch.__version__.split("+")[0], "diffusers": diffusers.__version__}
    record["classes"] = dict(sorted(classes.items()))
    save(record)
    record["fixtures"] = try_fixtures() or record["fixtures"]
    save(record)


def save(record: dict[str, Any]) -> None:
    """Write docs/support.json."""
    RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
