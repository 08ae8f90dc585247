"""Who may import whom, read off the source: the rules that keep each room usable without the others."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LEAVES = {"errors", "files", "registry"}
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

    for node in walk(ast.parse(path.read_text(encoding="utf-8"))):
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


@pytest.mark.parametrize("path", [path for path in SOURCES if name(path).startswith("accel/")], ids=name)
def test_what_a_user_can_reach_is_no_bare_assertion(path: Path) -> None:
    """An AssertionError says nothing to whoever meets it: accel raises an OutpaceError that names the way out."""
    lines = [node.lineno for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Assert)]
    assert lines == []
