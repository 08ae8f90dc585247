"""Who may import whom, read off the source: the rules that keep each room usable without the others."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from outpace.accel import METHODS
from outpace.accel.part import PLACES

ROOT = Path(__file__).resolve().parent.parent
LEAVES = {"errors", "files", "registry", "weights"}
ALLOWED = {
    "kernels": set(),
    "accel": {"kernels"},
    "models": {"kernels"},
    "pipelines": {"accel", "kernels"},
    "evaluation": set(),
}
SOURCES = [path for part in (*ALLOWED, "outpace") for path in sorted((ROOT / part).rglob("*.py"))]


def package_of(path: Path) -> list[str]:
    parts = list(path.relative_to(ROOT).parent.parts)
    return parts if parts[0] == "outpace" else ["outpace", *parts]


parsed = cache(ast.parse)  # four tests read every file


def imported(path: Path, *, at_import: bool = False) -> Iterator[tuple[int, str]]:
    """Line and full name of every module that `path` imports; `at_import` leaves out functions and type checking."""

    def walk(node: ast.AST) -> Iterator[ast.AST]:
        for child in ast.iter_child_nodes(node):
            if at_import and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                continue
            if at_import and isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            yield child
            yield from walk(child)

    for node in walk(parsed(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            package = package_of(path)
            base = package[: len(package) - node.level + 1] if node.level else []
            module = [*base, *(node.module.split(".") if node.module else [])]
            for alias in node.names:
                yield node.lineno, ".".join([*module, alias.name])


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def breaches(path: Path) -> list[str]:
    room = path.relative_to(ROOT).parts[0]
    found = []
    for line, module in imported(path):
        top, *rest = module.split(".")
        if top == "outpace" and room != "outpace" and rest[0] != room and rest[0] not in ALLOWED[room] | LEAVES:
            found.append(f"line {line}: {room} may not import {module}")
        if top == "diffusers" and room not in ("accel", "pipelines"):
            found.append(f"line {line}: diffusers belongs in accel and pipelines")
        if top == "triton" and not (room == "kernels" and path.name == "triton.py"):
            found.append(f"line {line}: triton belongs in kernels/*/triton.py")
    for line, module in imported(path, at_import=True):
        if module.split(".")[0] == "transformers":
            found.append(f"line {line}: import transformers inside the function that needs it")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_imports_stay_in_their_layer(path: Path) -> None:
    assert breaches(path) == []


@pytest.mark.parametrize("leaf", sorted(LEAVES))
def test_leaves_import_nothing_of_ours_but_leaves(leaf: str) -> None:
    ours = [module for _, module in imported(ROOT / "outpace" / f"{leaf}.py") if module.startswith("outpace.")]
    assert all(module.split(".")[1] in LEAVES for module in ours)


def test_the_rules_would_notice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "kernels" / "op").mkdir(parents=True)
    bad = tmp_path / "kernels" / "op" / "torch.py"
    bad.write_text(
        "import diffusers\nimport transformers\nimport triton\n"
        "from ...accel.clock import Clock\nfrom ... import evaluation\nfrom ...errors import ConfigError\n"
    )
    assert [line.split(":")[0] for line in breaches(bad)] == ["line 1", "line 3", "line 4", "line 5", "line 2"]


def module_of(path: Path) -> str:
    return ".".join([*package_of(path), *([] if path.stem == "__init__" else [path.stem])])


def circle(paths: list[Path]) -> list[str]:
    """Modules that import each other in a circle, the first one again at its end; none where there is no circle.

    Imports inside functions and for type checking count: a reader follows them all the same. What the face of the
    package, `outpace`, hands on by name is no import of it.
    """
    modules = {module_of(path): path for path in paths}
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        found = graph[module] = set()
        for _, wanted in imported(path):
            while wanted and wanted not in modules:
                wanted = wanted.rpartition(".")[0]
            if wanted not in ("", "outpace", module):
                found.add(wanted)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_files_import_each_other_in_a_circle() -> None:
    assert circle(SOURCES) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("from .other import X\n", "from .one import Y\n"),
        ("from .other import X\n", "if TYPE_CHECKING:\n    from .one import Y\n"),
        ("from .other import X\n", "def f():\n    from outpace.kernels.op import one\n"),
        ("from .other import X\n", "from . import three\n"),
    ],
)
def test_a_circle_would_be_noticed(one: str, other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    folder = tmp_path / "kernels" / "op"
    folder.mkdir(parents=True)
    held = {"__init__": "from .one import Z\n", "one": one, "other": other, "three": "from .one import Y\n"}
    for stem, text in held.items():
        (folder / f"{stem}.py").write_text(text)
    assert "outpace.kernels.op.one" in circle(sorted(folder.iterdir()))
    (folder / "other.py").write_text("from ...errors import ConfigError\n")
    assert circle(sorted(folder.iterdir())) == []


@pytest.mark.parametrize("file", ["apply.py", "handle.py", "conductor.py", "part.py"])
def test_what_accelerates_knows_no_method_by_name(file: str) -> None:
    """A method is one registered file: what applies it is told what to do by the part that it makes."""
    text = (ROOT / "accel" / file).read_text(encoding="utf-8")
    # Two methods are called after the places that they take, which are no secret.
    names = {name for registered, cls in METHODS.items() for name in (registered, cls.__name__)} - set(PLACES)
    assert [name for name in names if re.search(rf"\b{name}\b", text)] == []


def test_accelerate_stays_small() -> None:
    for file in ("apply.py", "handle.py"):
        assert len((ROOT / "accel" / file).read_text(encoding="utf-8").splitlines()) < 200


@pytest.mark.parametrize("path", [path for path in SOURCES if name(path).startswith("accel/")], ids=name)
def test_what_a_user_can_reach_is_no_bare_assertion(path: Path) -> None:
    """An AssertionError says nothing to whoever meets it: accel raises an OutpaceError that names the way out."""
    lines = [node.lineno for node in ast.walk(parsed(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Assert)]
    assert lines == []
