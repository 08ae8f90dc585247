"""Does a test say so when a term is dropped? One change at a time, and what the checks and fast tests make of it.

Changes are drawn from the sources by a seed (`source_changes.py`), and those of `lost_terms.py`, which somebody wrote,
come besides. A change to a model, or to a kernel that it uses, is shown to `outpace models check` of the models that
are built on that file, then to the fast tests of its area; one of forecasts, their replay, gate and calibration to the
fast tests of those. It counts as noticed when one of them fails, or nothing runs any more; what noticed it is then
tried without any change, and the run ends where it fails there, too.

    python benchmarks/mutation.py                   # about 200 changes, half an hour; benchmarks/results/mutation.md
    python benchmarks/mutation.py --minutes 9       # as far as that; the same command again goes on
    python benchmarks/mutation.py --only models/vig.py --count 0   # every change of one file

Each change runs in a process of its own, forked from one that has torch loaded already. What was found is kept in
build/mutation.jsonl, and taken from there as long as no source and no test has changed.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import json
import os
import platform
import re
import signal
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from lost_terms import BLIND, LOST
from source_changes import Change, Changed, chosen

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "mutation.md"
WHY = ROOT / "benchmarks" / "results" / "mutation_why.json"
"""Of changes that nothing notices, why: written by who looked."""
JOURNAL = ROOT / "build" / "mutation.jsonl"
LIMIT = 180
"""Seconds of a processor after which a change counts as noticed: it never ends. Ten times as long where it waits."""
PLUMBING = {"__init__", "companion", "create", "settings", "numbers", "remember"}
"""Files of models/ that hold no model."""
NOT_USED = {
    "__init__", "triton", "flex", "launch", "row_plan", "triton_limits", "reference", "sparse", "mass", "torch_mass",
    "block_index", "block_views", "stream",
}  # fmt: skip
"""Files of kernels/ that run on a GPU only, that tests compare with, or that no model calls."""
NEAREST = 6
"""Models that a change to a kernel is shown to: those whose own files use it most directly."""
ACCEL = (
    "accel/forecast", "accel/calibration/schedule.py", "accel/calibration/runs.py", "accel/methods/gated_taylor.py",
    "accel/methods/interval_taylor.py", "accel/methods/scheduled_taylor.py",
)  # fmt: skip
"""Forecasts, their replay and gate, the schedule and its calibration."""
FIELDS = "tests/models/test_create.py::test_a_changed_field_is_refused_or_works"
"""What a model's configuration refuses, by the model."""
FORECAST_TESTS = (
    "tests/accel/test_forecast_history.py",
    "tests/accel/test_forecast_deciding.py",
    "tests/accel/test_forecaster.py",
    "tests/accel/test_forecast_errors.py",
    "tests/accel/test_replay_parts.py",
    "tests/accel/test_calibration_runs.py",
    "tests/accel/test_calibration_search.py",
    "tests/accel/test_schedule_policy.py",
    "tests/kernels/test_forecast.py",
    "tests/accel/test_late_threshold.py",
    "tests/accel/test_rounding.py",
    "tests/accel/test_moments.py",
    "tests/accel/test_replay.py",
    "tests/accel/test_scheduled.py",
)
"""From the fastest to the slowest; after the first, one that names the file that was changed goes before others."""


def targets(only: list[str]) -> list[Path]:
    """The files that are changed."""
    if only:
        return [ROOT / name for name in only]
    models = [
        path
        for path in sorted((ROOT / "models").rglob("*.py"))
        if path.stem not in PLUMBING and path.relative_to(ROOT).parts[1] not in ("checks", "trials", "cases")
    ]
    used = {module for path in models for module in imported(path)}
    grown = set()
    while used - grown:
        grown |= used
        used |= {module for name in grown for module in imported(ROOT / name)}
    kernels = [ROOT / name for name in sorted(grown) if name.startswith("kernels/") and Path(name).stem not in NOT_USED]
    accel = [path for place in ACCEL for path in sorted((ROOT / place).glob("*.py")) or [ROOT / place]]
    return [*models, *kernels, *(path for path in accel if path.stem != "__init__")]


@cache
def imported(path: Path) -> frozenset[str]:
    """Our own files that one imports, from the root."""
    if not path.is_file():
        return frozenset()
    found = set()
    parts = path.relative_to(ROOT).with_suffix("").parts
    package = parts if path.name == "__init__.py" else parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1] if path.name != "__init__.py" else package[: -node.level]
            module = [*base, *(node.module or "").split(".")] if node.module else list(base)
            for name in [*(alias.name for alias in node.names), None]:
                place = "/".join([*module, name] if name else module)
                for file in (f"{place}.py", f"{place}/__init__.py"):
                    if (ROOT / file).is_file():
                        found.add(file)
    return frozenset(found)


def dependents(path: Path) -> list[str]:
    """Models whose file, checks or cases lead to one by imports, the nearest first."""
    target, names = str(path.relative_to(ROOT)), []
    for place in sorted((ROOT / "models" / "checks").glob("*.py")):
        name = place.stem
        if name == "__init__":
            continue
        starts = [
            f"models/{name}.py",
            f"models/{name}/__init__.py",
            f"models/cases/{name}.py",
            f"models/checks/{name}.py",
        ]
        seen, frontier, depth = set(), {file for file in starts if (ROOT / file).is_file()}, 0
        while frontier:
            if target in frontier:
                names.append((depth, name))
                break
            seen |= frontier
            frontier = {
                file for one in frontier for file in imported(ROOT / one)
                if file.split("/")[-1] not in ("companion.py", "remember.py") and file != "models/__init__.py"
            } - seen  # fmt: skip
            depth += 1
    return [name for _, name in sorted(names)]


Noticed = tuple[str, tuple[str, ...]]
"""What noticed a change in words, and by what it can be tried again: ("check", model, what holds), ("tests", file)."""


def noticed_by(change: Change) -> Noticed | None:
    """In a child: what noticed the change; None where nothing did."""
    sys.meta_path.insert(0, Changed(change))
    path = ROOT / change.path
    room = change.path.split("/")[0]
    if room in ("models", "kernels"):
        from outpace.models.companion import checks_of

        for name in dependents(path)[: NEAREST if room == "kernels" else None]:
            about = ""
            try:
                checks = checks_of(name)
                checks.sort(key=lambda one: not one.about.startswith("as remembered"))
                for check in checks:
                    about = check.about
                    if room == "kernels" and " parameters (the paper" in about:
                        continue
                    error, held = check.run()
                    if not held:
                        return f"check {name}: {about} ({error:.1e})", ("check", name, about)
            except Exception as error:  # whatever a model ends with where a term is gone
                return f"{type(error).__name__}: {str(error)[:80]}", ("check", name, about)
    for file in fast_tests(path):
        if run_tests(file):
            return f"tests {file}", ("tests", file)
    return None


def run_tests(file: str) -> bool:
    """Whether one of the fast tests of a file fails."""
    import pytest

    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        code = pytest.main(["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow", file])
    return code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)


def holds(by: tuple[str, ...]) -> bool:
    """In a child, without any change: whether what noticed one has nothing to say."""
    kind, *named = by
    if kind == "tests":
        return not run_tests(*named)
    from outpace.models.companion import checks_of

    name, about = named
    return all(check.run()[1] for check in checks_of(name) if check.about == about)


def fast_tests(path: Path) -> list[str]:
    """Tests of a file's area that take seconds."""
    room, stem = path.relative_to(ROOT).parts[0], path.stem
    if room == "accel":
        first, *others = FORECAST_TESTS
        others.sort(key=lambda name: f".{stem} import" not in (ROOT / name).read_text(encoding="utf-8"))
        return [first, *others]
    if path.parent.name == "published":
        return ["tests/models/test_published.py", "tests/models/test_mossformer.py"]
    if room == "models":
        found = {ROOT / "tests" / "models" / f"test_{stem}.py"}
        found |= {
            one
            for one in (ROOT / "tests" / "models").glob("test_*.py")
            if one.stem != "test_remember" and f".{stem} import" in one.read_text(encoding="utf-8")
        }
        named = [str(one.relative_to(ROOT)) for one in sorted(found) if one.is_file()]
        from outpace.models import MODELS

        built = [name for name in dependents(path)[:1] if MODELS[name].build is not None]
        return [*named, *(f"{FIELDS}[{name}]" for name in built)]
    package = path.parent.name
    words = {stem if stem not in ("torch", "inputs", "numbers", "ffn", "gated", "chunked", "decay") else package}
    return [
        str(one.relative_to(ROOT))
        for one in sorted((ROOT / "tests" / "kernels").glob("test_*.py"))
        if "benchmark" not in one.name and "triton" not in one.name
        and any(re.search(rf"\b{word}", one.read_text(encoding="utf-8")) for word in words)
    ]  # fmt: skip


def in_child(run: Callable[[], Any]) -> Any:
    """What a function gives in a process of its own, as JSON; the name of the exception that it ended with as text."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        signal.setitimer(signal.ITIMER_PROF, LIMIT)
        signal.alarm(10 * LIMIT)
        for name in [name for name in sys.modules if name.split(".")[0] == "outpace"]:
            del sys.modules[name]  # a caller may have imported what is about to change
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        try:
            made = run()
        except BaseException as error:
            made = f"{type(error).__name__}: {str(error)[:80]}"
        os.write(write, json.dumps(made).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        told = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    return f"ended by signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else json.loads(told)


def tried(change: Change) -> tuple[str | None, float]:
    """(what noticed it, seconds), in a process of its own.

    Raises: SystemExit: what noticed it fails without any change, too.
    """
    started = time.monotonic()
    found = in_child(lambda: noticed_by(change))
    told, by = (found, None) if isinstance(found, str) or found is None else found
    if by is not None and not held_before(tuple(by)):
        raise SystemExit(f"{' '.join(by)}: fails without any change, too; nothing can be counted before that is mended")
    return told, time.monotonic() - started


@cache
def held_before(by: tuple[str, ...]) -> bool:
    """Whether what noticed a change holds without one, tried once."""
    return in_child(lambda: holds(by)) is True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200, help="about how many are drawn; 0 is every one")
    parser.add_argument("--seed", type=int, default=0, help="which ones")
    parser.add_argument("--only", action="append", default=[], help="a file, from the root; may be given again")
    parser.add_argument("--area", choices=("models", "kernels", "accel"), help="of these files alone")
    parser.add_argument("--written", action="store_true", help="those of lost_terms.py alone")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop then; the same command goes on")
    parser.add_argument("--again", action="store_true", help="try them all, whatever was found before")
    parser.add_argument("--list", action="store_true", help="print the changes and run none")
    parser.add_argument("--save", action="store_true", help=f"write {RESULT.relative_to(ROOT)}")
    asked = parser.parse_args()
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    changes = [] if asked.written else chosen(targets(asked.only), asked.count, asked.seed)
    changes += written() if asked.written or not asked.only else []
    changes = [change for change in changes if asked.area in (None, change.path.split("/")[0])]
    changes.sort(key=lambda change: ("models", "kernels", "accel").index(change.path.split("/")[0]))
    if asked.list:
        for change in changes:
            print(f"{change.path}:{change.line}: {change.what}")
        return
    preload()
    started, known, rows = time.monotonic(), {} if asked.again else journal(), []
    for number, change in enumerate(changes, 1):
        key = f"{sources()} {change.path} {zlib.crc32(change.source.encode()):08x}"
        if key not in known:
            if time.monotonic() - started > 60 * asked.minutes:
                break
            known[key] = tried(change)
            JOURNAL.parent.mkdir(exist_ok=True)
            with JOURNAL.open("a", encoding="utf-8") as file:
                file.write(json.dumps([key, *known[key]]) + "\n")
        told, seconds = known[key]
        rows.append((change, told))
        mark = "noticed" if told else "MISSED "
        print(f"{number}/{len(changes)} {mark} {seconds:4.1f} s {change.path}:{change.line}: {change.what}"
              f"{' <- ' + told if told else ''}", flush=True)  # fmt: skip
    for line in moved():
        print(f"write this one again, its source changed: {line}")
    report = summary(rows, len(changes), " ".join(["", *sys.argv[1:]]))
    print(report.split("\n## ")[0])
    if asked.save:
        RESULT.write_text(report, encoding="utf-8")
    if len(rows) < len(changes):
        raise SystemExit(f"{len(rows)} of {len(changes)} are tried; the same command goes on from there")


def written() -> list[Change]:
    """The changes of `lost_terms.py`, but for terms that their sources do not hold once any more: see `moved`."""
    made = []
    for path, term, without in (*LOST, *BLIND):
        source = (ROOT / path).read_text(encoding="utf-8")
        if source.count(term) == 1:
            line = source[: source.index(term)].count("\n") + 1
            told = f"written: `{' '.join(term.split())}` becomes `{' '.join(without.split())}`"
            made.append(Change(path, line, told, source.replace(term, without)))
    return made


def moved() -> list[str]:
    """Terms of `lost_terms.py` that have to be written again: their sources changed."""
    return [
        f"{path}: {term}"
        for path, term, _ in (*LOST, *BLIND)
        if (ROOT / path).read_text(encoding="utf-8").count(term) != 1
    ]


@cache
def sources() -> str:
    """What stands for everything that a change could be noticed by."""
    told = 0
    for room in ("accel", "kernels", "models", "outpace", "tests"):
        for path in sorted((ROOT / room).rglob("*.py")) + sorted((ROOT / room).rglob("*.json")):
            told = zlib.crc32(path.read_bytes(), told)
    return f"{told:08x}"


def journal() -> dict[str, tuple[str | None, float]]:
    """What was found before, by change and state of the sources."""
    if not JOURNAL.is_file():
        return {}
    lines = [json.loads(line) for line in JOURNAL.read_text(encoding="utf-8").splitlines()]
    return {key: (told, seconds) for key, told, seconds in lines}


def preload() -> None:
    """What every child would load again."""
    # tests/conftest.py does the same, too late for what is loaded here: kernels would then fail whatever was changed
    os.environ.setdefault("TRITON_INTERPRET", "1")
    import torch

    torch.set_num_threads(1)
    for name in ("pytest", "hypothesis", "scipy.special", "sklearn.datasets", "transformers", "diffusers"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    with contextlib.suppress(ImportError):
        from transformers import (  # noqa: F401
            Mask2FormerForUniversalSegmentation,
            Qwen2ForCausalLM,
            ResNetBackbone,
            SwinForImageClassification,
        )


def summary(rows: list[tuple[Change, str | None]], count: int, options: str) -> str:
    """The counts, by area and kind, and every change that was missed with the reason that is known for it."""
    import torch

    def area(change: Change) -> str:
        return "/".join(change.path.split("/")[: 2 if change.path.startswith("accel") else 1])

    def kind(change: Change) -> str:
        return re.split(" of `|:", change.what)[0]

    why = json.loads(WHY.read_text(encoding="utf-8")) if WHY.is_file() else {}
    lines = [
        "# One-term changes that checks and fast tests notice",
        "",
        f"{sum(told is not None for _, told in rows)} of {len(rows)} noticed"
        f" ({sum(told is not None for _, told in rows) / max(len(rows), 1):.1%}),"
        f" {sum(_ended(told) for _, told in rows)} of them because nothing ran any more: "
        + " and ".join(
            f"{sum(told is not None for told in part)} of {len(part)} that {how}"
            for how, part in (
                ("were drawn", [told for change, told in rows if kind(change) != "written"]),
                ("somebody wrote", [told for change, told in rows if kind(change) == "written"]),
            )
        )
        + ".",
        "",
        f"`python benchmarks/mutation.py{options}`, torch {torch.__version__}, {platform.machine()}."
        + (f" The run was stopped here; its list has {count}." if len(rows) < count else ""),
    ]
    for title, name in (("where", area), ("kind", kind)):
        lines += ["", f"| {title} | changes | noticed |", "| --- | --- | --- |"]
        counts = Counter(name(change) for change, _ in rows)
        seen = Counter(name(change) for change, told in rows if told is not None)
        lines += [f"| {key} | {counts[key]} | {seen[key]} |" for key in sorted(counts)]
    lines += ["", "## Missed", ""]
    missed = [change for change, told in rows if told is None]
    lines += [f"- {one.path}:{one.line}: {one.what} ({why.get(f'{one.path}: {one.what}', 'not looked at yet')})"
              for one in missed] or ["None."]  # fmt: skip
    return "\n".join(lines) + "\n"


def _ended(told: str | None) -> bool:
    return told is not None and not told.startswith(("check ", "tests "))


if __name__ == "__main__":
    main()
