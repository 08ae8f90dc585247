"""One-term changes of a source file: what can be changed in it, and a module that is loaded from changed source.

A change is of one place: a term or a factor left out, an operator exchanged, a call replaced by its argument, a sign or
a comparison flipped, a constant or a flag changed, an argument left out, branches exchanged. Which ones follows from
the sources and a seed, so that anyone gets the same.
"""

from __future__ import annotations

import ast
import copy
import importlib.abc
import importlib.util
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
GPU_FUNCTIONS = {"_flash", "_cudnn", "_efficient", "_xformers", "_flash_attn", "_on_gpu", "_absent", "_multiple_of_8"}
"""Functions of other files that run on a GPU only; what tests compare with (`reference_...`) is left out, too."""
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
