"""Does a test say so when a term is dropped? One change at a time, and what the checks and fast tests make of it.

Every change is of one place in a file's source: a term or a factor left out, an operator exchanged, a call replaced by
its argument, a sign or a comparison flipped, a constant or a flag changed, an argument left out, branches exchanged.
The list follows from the sources and a seed, so that anyone gets the same. A change to a model, or to a kernel that it
uses, is shown to `outpace models check` of the models that are built on that file, then to the fast tests of its area;
one in `accel/forecast` to the fast tests of forecasts. It counts as noticed when one of them fails, or nothing runs any
more.

    python benchmarks/mutation.py                   # 200 changes, some minutes; benchmarks/results/mutation.md
    python benchmarks/mutation.py --only models/vig.py --count 0   # every change of one file

Each change runs in a process of its own, forked from one that has torch loaded already.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import importlib
import importlib.abc
import importlib.util
import os
import platform
import random
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "mutation.md"
ROOMS = ("kernels", "models", "accel", "pipelines", "evaluation")
LIMIT = 180
"""Seconds after which a change counts as noticed: it never ends."""
PLUMBING = {"__init__", "companion", "create", "settings", "numbers", "remember"}
"""Files of models/ that hold no model."""
NOT_USED = {
    "__init__", "triton", "flex", "launch", "row_plan", "triton_limits", "reference", "sparse", "mass", "torch_mass",
    "block_index", "block_views", "stream",
}  # fmt: skip
"""Files of kernels/ that run on a GPU only, that tests compare with, or that no model calls."""
GPU_FUNCTIONS = {"_flash", "_cudnn", "_efficient", "_xformers", "_flash_attn", "_on_gpu", "_absent", "_multiple_of_8"}
"""Functions of other files that run on a GPU only; what tests compare with (`reference_...`) is left out, too."""
NEAREST = 6
"""Models that a change to a kernel is shown to: those whose own files use it most directly."""
FORECAST_TESTS = (
    "tests/accel/forecast",
    "tests/accel/test_replay.py",
    "tests/accel/test_moments.py",
    "tests/accel/test_late_threshold.py",
    "tests/kernels/test_forecast.py",
)
OPERATORS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult}
COMPARISONS = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}
NEUTRAL = frozenset(
    "len range list tuple dict set zip enumerate isinstance super getattr float int str iter next print sorted "
    "reversed any all field cast type".split()
)
"""Calls that carry no term."""


Option = tuple[str, Callable[[], ast.expr]]
"""What can be done to an expression, and how."""


@dataclass(frozen=True)
class Change:
    """One change of one file."""

    path: str
    line: int
    what: str
    source: str


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
    forecast = [path for path in sorted((ROOT / "accel" / "forecast").rglob("*.py")) if path.stem != "__init__"]
    return [*models, *kernels, *forecast]


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


def sites_of(path: Path) -> list[tuple[int, int, str]]:
    """(place, line, what) of everything that can be changed in a file, in the order of its source."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = ((getattr(node, "lineno", 0), what) for _, _, node, options in _walk(tree) for what, _ in options)
    return [(place, line, what) for place, (line, what) in enumerate(found)]


def change_at(path: Path, place: int, line: int, what: str) -> Change | None:
    """One of them; None where what comes out is the same program, or none."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    before = ast.dump(tree)
    _apply(tree, place)
    try:
        source = ast.unparse(ast.fix_missing_locations(tree))
        after = ast.dump(ast.parse(source))
    except (SyntaxError, ValueError):
        return None
    return None if after == before else Change(str(path.relative_to(ROOT)), line, what, source)


def _apply(tree: ast.AST, wanted: int) -> None:
    count = 0
    for parent, slot, _, options in _walk(tree):
        for _, make in options:
            if count == wanted:
                new = make()
                if isinstance(slot, tuple):
                    getattr(parent, slot[0])[slot[1]] = new
                else:
                    setattr(parent, slot, new)
                return
            count += 1


def _walk(tree: ast.AST) -> Iterator[tuple[ast.AST, Any, ast.expr, list[Option]]]:
    """(parent, where in it, node, [(what, how)]) of every expression that takes part in a computation."""

    def visit(node: ast.AST, active: bool) -> Iterator[tuple[ast.AST, Any, ast.expr, list[Option]]]:
        if isinstance(node, (ast.Raise, ast.Assert, ast.Import, ast.ImportFrom, ast.AnnAssign)) and not active:
            return
        if isinstance(node, ast.Assign) and not isinstance(node.value, ast.Call):
            active = True
        if isinstance(node, ast.FunctionDef) and (node.name in GPU_FUNCTIONS or node.name.startswith("reference_")):
            return
        if isinstance(node, (ast.FunctionDef, ast.Lambda)):
            active = getattr(node, "name", "") not in ("__post_init__", "flops") and not (
                isinstance(node, ast.FunctionDef) and node.name.startswith(("_size", "check_"))
            )
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns", "decorator_list", "type_params", "keywords") and field != "keywords":
                continue
            if isinstance(value, list):
                for place, item in enumerate(value):
                    if isinstance(item, (ast.Raise, ast.Assert)):
                        continue
                    if isinstance(item, ast.If) and item.body and isinstance(item.body[-1], ast.Raise):
                        continue
                    if isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant):
                        continue
                    if isinstance(item, ast.keyword) and item.arg == "strict":
                        continue
                    if isinstance(item, ast.expr) and active:
                        yield node, (field, place), item, _options(item)
                    if isinstance(item, ast.AST):
                        yield from visit(item, active)
            elif isinstance(value, ast.AST):
                if isinstance(value, ast.expr) and active:
                    yield node, field, value, _options(value)
                yield from visit(value, active)

    yield from visit(tree, False)


def _options(node: ast.expr) -> list[Option]:
    """What can be done to an expression: [(what, how)]."""
    text = ast.unparse(node)
    short = text if len(text) <= 70 else text[:67] + "..."
    made: list[Option] = []

    def add(what: str, make: Callable[[], ast.expr]) -> None:
        made.append((f"{what} of `{short}`", make))

    if isinstance(node, ast.BinOp):
        kind = type(node.op)
        textual = any(isinstance(side, (ast.JoinedStr, ast.List, ast.Tuple)) for side in (node.left, node.right))
        if kind in OPERATORS and not textual:
            add(
                "operator exchanged",
                lambda: ast.BinOp(copy.deepcopy(node.left), OPERATORS[kind](), copy.deepcopy(node.right)),
            )
        if kind in (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.MatMult) and not textual:
            add("second term dropped", lambda: copy.deepcopy(node.left))
            if kind in (ast.Add, ast.Mult):
                add("first term dropped", lambda: copy.deepcopy(node.right))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        add("sign flipped", lambda: copy.deepcopy(node.operand))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        add("not dropped", lambda: copy.deepcopy(node.operand))
    elif isinstance(node, ast.Constant):
        value = node.value
        if isinstance(value, bool):
            add("flag flipped", lambda: ast.Constant(not value))
        elif isinstance(value, (int, float)):
            other = value + 1 if isinstance(value, int) else value * 1.5 if value else 0.5
            add("constant changed", lambda: ast.Constant(other))
    elif isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in COMPARISONS:
        other_kind = COMPARISONS[type(node.ops[0])]
        add(
            "comparison flipped",
            lambda: ast.Compare(copy.deepcopy(node.left), [other_kind()], copy.deepcopy(node.comparators)),
        )
    elif isinstance(node, ast.IfExp):
        add(
            "branches exchanged",
            lambda: ast.IfExp(copy.deepcopy(node.test), copy.deepcopy(node.orelse), copy.deepcopy(node.body)),
        )
    elif isinstance(node, ast.Call):
        called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if called not in NEUTRAL:
            if isinstance(node.func, ast.Attribute) and not _is_module(node.func.value):
                if not (isinstance(node.func.value, ast.Name) and node.func.value.id == "self"):
                    add("call replaced by what it is of", lambda: copy.deepcopy(node.func.value))
                elif node.args:
                    add("call replaced by its argument", lambda: copy.deepcopy(node.args[0]))
            elif node.args and not called[:1].isupper():
                add("call replaced by its argument", lambda: copy.deepcopy(node.args[0]))
        for place, keyword in enumerate(node.keywords):
            if keyword.arg not in (None, "strict") and called not in NEUTRAL and not called[:1].isupper():
                add(f"argument {keyword.arg} dropped", lambda place=place: _without(node, place))
    return made


def _is_module(node: ast.expr) -> bool:
    return ast.unparse(node).split(".")[0] in ("torch", "F", "nn", "math", "itertools")


def _without(node: ast.Call, place: int) -> ast.Call:
    call = copy.deepcopy(node)
    del call.keywords[place]
    return call


class Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Serves one module of ours from other source."""

    def __init__(self, change: Change) -> None:
        self.name = "outpace." + change.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        self.change = change

    def find_spec(self, fullname: str, path: object = None, target: object = None):
        if fullname != self.name:
            return None
        package = self.change.path.endswith("__init__.py")
        spec = importlib.util.spec_from_loader(fullname, self, origin=self.change.path, is_package=package)
        if spec is not None and package:
            spec.submodule_search_locations = [str((ROOT / self.change.path).parent)]
        return spec

    def exec_module(self, module: ModuleType) -> None:
        module.__file__ = str(ROOT / self.change.path)
        exec(compile(self.change.source, module.__file__, "exec"), module.__dict__)


def noticed_by(change: Change) -> str | None:
    """In a child: what noticed the change; None where nothing did."""
    for name in [name for name in sys.modules if name.split(".")[0] == "outpace"]:
        del sys.modules[name]  # a caller may have imported what is about to change
    sys.meta_path.insert(0, Changed(change))
    path = ROOT / change.path
    room = change.path.split("/")[0]
    if room in ("models", "kernels"):
        from outpace.models.companion import checks_of

        for name in dependents(path)[: NEAREST if room == "kernels" else None]:
            checks = checks_of(name)
            checks.sort(key=lambda one: not one.about.startswith("as remembered"))
            for check in checks:
                if room == "kernels" and " parameters (the paper" in check.about:
                    continue
                error, held = check.run()
                if not held:
                    return f"check {name}: {check.about} ({error:.1e})"
    tests = fast_tests(path)
    if tests:
        import pytest

        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            code = pytest.main(["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow", *tests])
        if code == 1:
            return "fast tests"
        if code != 0:
            return f"fast tests end with {int(code)}"
    return None


def fast_tests(path: Path) -> list[str]:
    """Tests of a file's area that take seconds."""
    room, stem = path.relative_to(ROOT).parts[0], path.stem
    if room == "accel":
        return [name for name in FORECAST_TESTS if (ROOT / name).exists()]
    if path.parent.name == "published":
        return ["tests/models/test_published.py", "tests/models/test_mossformer.py"]
    if room == "models":
        found = {ROOT / "tests" / "models" / f"test_{stem}.py"}
        found |= {
            one
            for one in (ROOT / "tests" / "models").glob("test_*.py")
            if one.stem != "test_remember" and f".{stem} import" in one.read_text(encoding="utf-8")
        }
        return [str(one.relative_to(ROOT)) for one in sorted(found) if one.is_file()]
    package = path.parent.name
    words = {stem if stem not in ("torch", "inputs", "numbers", "ffn", "gated", "chunked", "decay") else package}
    return [
        str(one.relative_to(ROOT))
        for one in sorted((ROOT / "tests" / "kernels").glob("test_*.py"))
        if "benchmark" not in one.name and "triton" not in one.name
        and any(re.search(rf"\b{word}", one.read_text(encoding="utf-8")) for word in words)
    ]  # fmt: skip


def tried(change: Change) -> tuple[str | None, float]:
    """(what noticed it, seconds), in a process of its own."""
    started = time.monotonic()
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        signal.alarm(LIMIT)
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        try:
            told = noticed_by(change)
        except BaseException as error:
            told = f"{type(error).__name__}: {str(error)[:80]}"
        os.write(write, (told or "").encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        told = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        told = f"ended by signal {os.WTERMSIG(status)}"
    return told or None, time.monotonic() - started


def chosen(files: list[Path], count: int, seed: int) -> list[Change]:
    """As many changes of every file as its share of all, at least one, drawn by the seed; all of them where 0."""
    by_file = {path: sites_of(path) for path in files}
    total = sum(map(len, by_file.values()))
    made: list[Change] = []
    for path, sites in by_file.items():
        many = len(sites) if not count else max(1, round(count * len(sites) / total))
        random.Random(f"{seed} {path.relative_to(ROOT)}").shuffle(sites)
        kept: list[Change] = []
        for site in sites:
            if len(kept) == many:
                break
            if (change := change_at(path, *site)) is not None:
                kept.append(change)
        made += sorted(kept, key=lambda one: one.line)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200, help="about how many; 0 is every one")
    parser.add_argument("--seed", type=int, default=0, help="which ones")
    parser.add_argument("--only", action="append", default=[], help="a file, from the root; may be given again")
    parser.add_argument("--area", choices=("models", "kernels", "accel"), help="of these files alone")
    parser.add_argument("--list", action="store_true", help="print the changes and run none")
    parser.add_argument("--save", action="store_true", help=f"write {RESULT.relative_to(ROOT)}")
    asked = parser.parse_args()
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    files = [path for path in targets(asked.only) if asked.area in (None, path.relative_to(ROOT).parts[0])]
    changes = chosen(files, asked.count, asked.seed)
    if asked.list:
        for change in changes:
            print(f"{change.path}:{change.line}: {change.what}")
        return
    preload()
    rows: list[tuple[Change, str | None]] = []
    for number, change in enumerate(changes, 1):
        told, seconds = tried(change)
        rows.append((change, told))
        mark = "noticed" if told else "MISSED "
        print(f"{number}/{len(changes)} {mark} {seconds:4.1f} s {change.path}:{change.line}: {change.what}"
              f"{' <- ' + told if told else ''}", flush=True)  # fmt: skip
    report = summary(rows, asked.count, asked.seed)
    print(report.split("\n## ")[0])
    if asked.save:
        RESULT.write_text(report, encoding="utf-8")


def preload() -> None:
    """What every child would load again."""
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


def summary(rows: list[tuple[Change, str | None]], count: int, seed: int) -> str:
    """The counts, by area and kind, and every change that was missed."""
    import torch

    def area(change: Change) -> str:
        return "/".join(change.path.split("/")[: 2 if change.path.startswith("accel") else 1])

    lines = [
        "# One-term changes that the checks and fast tests notice",
        "",
        f"{sum(told is not None for _, told in rows)} of {len(rows)} noticed"
        f" ({sum(told is not None for _, told in rows) / max(len(rows), 1):.1%}).",
        "",
        f"`python benchmarks/mutation.py --count {count} --seed {seed} --save`, torch {torch.__version__}, "
        f"{platform.machine()}.",
        "",
        "| where | changes | noticed |",
        "| --- | --- | --- |",
    ]
    for key in sorted({area(change) for change, _ in rows}):
        mine = [told for change, told in rows if area(change) == key]
        lines.append(f"| {key} | {len(mine)} | {sum(told is not None for told in mine)} |")
    lines += ["", "| kind | changes | noticed |", "| --- | --- | --- |"]
    kinds = Counter(change.what.split(" of `")[0].split(" ")[0] for change, _ in rows)
    for kind in sorted(kinds):
        mine = [told for change, told in rows if change.what.startswith(kind)]
        lines.append(f"| {kind} | {len(mine)} | {sum(told is not None for told in mine)} |")
    lines += ["", "## Missed", ""]
    lines += [f"- {change.path}:{change.line}: {change.what}" for change, told in rows if told is None] or ["None."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
