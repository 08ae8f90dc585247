"""What works on which transformer, tried anew: `make support` writes docs/support.json, from which `make readme` makes
docs/families.md.

With DIFFUSERS_TESTS=CHECKOUT the pipelines of diffusers' own tests are tried too; without, what is known of them stays.
`python docs/support.py classes`, `changed` (classes whose family's data are others now), `fixtures` or `new` (fixtures
that have not passed yet) tries a part, and `new wan sana` those of them whose names begin so.
Every class is tried on a tiny model of it, and what is said of it is stamped with its family's data: a family that was
changed since has to be tried again.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "docs" / "support.json"
ALL = "the same inputs again, all forecast, give the same result"
SOME = "the same inputs again, some samples forecast, give the same result"
WORDS = {"sparse": "sparse attention", "bricks": "bricks", "experts": "experts", "reuse": "exact reuse"}
RAISED = "raised: "
"""What stands before an exception out of a run: what is taken has to work."""
GIVEN = {
    "ControlNet": "Control",
    "picture given": "Img2Img|I2I|ImageTo|Image2|I2V|V2V|VideoTo|Video2|Inpaint|Edit|Kontext|Fill|Reference|Upsample",
}
"""Columns by what the names of the pipelines say that they are given."""
INTRO = """# Supported transformers

Written by `make readme` from docs/support.json, which `make support` makes by trying all of it (torch {torch},
diffusers {diffusers}): {classes} classes, each on a tiny random model. A class of your own takes
[ten lines](adding_a_family.md).

Forecast: the same inputs again, all blocks but the first left out, give the same result, in every stream. Samples
apart: so they do where only some samples of a batch are forecast; a dash where a call is one sample, or samples are
decided together. Sparse attention, bricks, experts and exact reuse: AdaSpa, BrickSkipping and ExactReuse did something
in a run of the tiny model, the last without changing a bit of it, and its feed-forward layers can become experts.
ControlNet and picture given: a pipeline with one, or that is given a picture or a clip, is among those tried."""
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
    from outpace.accel import AdaSpa, BrickSkipping, ExactReuse, find_family
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
        "reuse": ran(specimen, ExactReuse()),
    }


def ran(specimen: Any, method: Any) -> str:
    """A yes where a method left something out in a run of four steps on a tiny model; else why not."""
    import torch

    from outpace.accel.apply import Acceleration
    from outpace.accel.check import Steps, leaves
    from outpace.errors import OutpaceError

    model, scheduler = specimen.build(), Steps()
    target = SimpleNamespace(transformer=model, scheduler=scheduler)
    args, kwargs = specimen.inputs((0, 1), model)
    with torch.no_grad():
        plain = leaves(model(*args, **kwargs))
    try:
        run = Acceleration(target, [method])
    except OutpaceError as error:  # refused, and the table says why
        return in_a_line(error)
    try:
        with torch.no_grad(), run:
            scheduler.set_timesteps(4)
            for _ in range(4):
                args, kwargs = specimen.inputs((0, 1), model)
                made = leaves(model(*args, **kwargs))
                scheduler.step()
                if method.place == "reuse" and not all(map(torch.equal, made, plain)):
                    return RAISED + "the result is another"
            calls, told = run.trace.calls, run.trace.reuse
    except Exception as error:  # it was taken, and does not work
        return RAISED + in_a_line(error)
    if any(call.sparse or any(call.skipped) for call in calls) or (told is not None and told.reused):
        return "yes"
    return "nothing happened on the tiny model" + "".join(f": {said}" for said in run.trace.warnings[:1])


def in_a_line(error: Exception) -> str:
    """What an exception says, cut short."""
    return " ".join(str(error).split())[:160]


def experts(specimen: Any) -> str:
    """A yes where the feed-forward layers can become experts; else why not."""
    from outpace.accel.experts.sites import find_sites
    from outpace.errors import OutpaceError

    try:
        return "yes" if find_sites(specimen.build()) else "no feed-forward layer that is known"
    except OutpaceError as error:
        return in_a_line(error)


def try_fixtures(known: dict[str, Any] | None, again: bool, begin: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """What came of the pipelines of diffusers' own tests so far, one more each time; nothing without a checkout.

    Args:
        known: what came of them before.
        again: also those that passed then.
        begin: how the names of those that are tried begin.
    """
    sys.path.insert(0, str(ROOT / "tests" / "fixtures"))
    found, trials = import_module("found"), import_module("trials")

    fixtures, missing = found.fixtures()
    tried = {one["fixture"]: one for one in (known or {"tried": []})["tried"]}
    for fixture in fixtures:
        known_right = fixture.id in tried and right(tried[fixture.id])
        if (known_right and not again) or not fixture.id.startswith(begin):
            continue
        tried[fixture.id] = asdict(trials.try_fixture(fixture))
        print(fixture.id, {word: tried[fixture.id][word] for word in ("refused", "not_run", "wrong")}, flush=True)
        yield {"tried": [tried[name] for name in sorted(tried)], "missing": missing}


def page() -> str:
    """docs/families.md: what was tried on which class, and what came of it."""
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    tried = (record["fixtures"] or {"tried": []})["tried"]
    reasons: dict[str, list[str]] = {}
    rows = []
    for name, one in sorted(record["classes"].items(), key=lambda item: (item[1]["family"], item[0])):
        cells = [sign(one["check"][ALL]), sign(one["check"][SOME])]
        for what in WORDS:
            cells.append("yes" if one[what] == "yes" else "no")
            if one[what] != "yes":
                reasons.setdefault(f"{WORDS[what]}: {one[what].replace(name, 'the class')}", []).append(name)
        mine = [got for got in tried if got["transformer"] == name]
        passed = sorted({short(got["pipeline"]) for got in mine if right(got)})
        cells += ["yes" if any(re.search(words, given) for given in passed) else "" for words in GIVEN.values()]
        rows.append(f"| {one['family']} | `{name}` | {' | '.join(cells)} | {', '.join(passed)} |")
    columns = ("family", "transformer", "forecast", "samples apart", *WORDS.values(), *GIVEN, "pipelines tried")
    parts = [
        INTRO.format(**record["versions"], classes=len(rows)),
        counts(tried),
        "\n".join([f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|", *rows]),
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
        "Where a fixture has a single block it was given three, and pictures that Qwen-Image-Edit and Kandinsky 5 "
        "bring to a megapixel were brought to 64 x 64. "
        f"{sum(bool(one['refused']) for one in tried)} were refused, and "
        f"{sum(bool(one['not_run']) for one in tried)} did not run plain where this was written"
    )
    return said + (f" ({unable})." if unable else ".") + (f" Wrong were: {'; '.join(wrong)}." if wrong else "")


def main(words: Sequence[str]) -> None:
    import diffusers
    import torch

    from outpace.accel import FAMILIES

    torch.set_num_threads(1)
    record: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.is_file() else {"fixtures": None}
    if not words or "classes" in words or "changed" in words:
        named = {name: stamp(family) for _, family in FAMILIES.items() for name in family.transformers}
        known = record.get("classes", {}) if "changed" in words else {}
        classes = {name: known[name] for name in named if name in known}
        for name in named:
            if name not in known or known[name]["data"] != named[name]:
                classes[name] = try_class(name)
                print(name, flush=True)
                record["classes"] = dict(sorted(classes.items()))
                save(record)
        record["versions"] = {"torch": torch.__version__.split("+")[0], "diffusers": diffusers.__version__}
        save(record)
    if not words or "fixtures" in words or "new" in words:
        begin = tuple(word for word in words if word not in ("classes", "changed", "fixtures", "new"))
        for so_far in try_fixtures(record["fixtures"], again="new" not in words, begin=begin or ("",)):
            record["fixtures"] = so_far
            save(record)


def save(record: dict[str, Any]) -> None:
    """Write docs/support.json."""
    RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
