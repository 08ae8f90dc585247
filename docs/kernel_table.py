"""Which kernels the diffusion side and the companion models use, read off the imports of the sources.

`make readme` writes docs/kernels.md from it (docs/tables.py); tests hold the page to the sources.
"""

from __future__ import annotations

import ast
import inspect
from collections import defaultdict
from importlib import import_module
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
SIDES = {"diffusion": ("accel", "pipelines"), "companions": ("models",)}
INTRO = """# One package of kernels

What the diffusion side (`accel/`, `pipelines/`) and the companion models (`models/`) import from `kernels/`, file by
file, read off the sources by `make readme`; a test holds this page to them. Checks and trials of models do not count.
In Python they are `outpace.kernels.FOLDER.NAME`.

Every kernel is held to a float64 reference on random shapes, and answers bad shapes, types and settings with one error:
`pytest tests/kernels`. Speeds: [attention](../benchmarks/results/attention_cpu.md),
[linear attention](../benchmarks/results/linear_attention_cpu.md), [experts](../benchmarks/results/moe_cpu.md),
[vision](results_vision_kernels.md), [8-bit codes](results_int8.md).
"""


Uses = dict[str, dict[str, set[tuple[str, str]]]]


def uses(root: Path = ROOT) -> Uses:
    """Module of a kernel ("attention.windows") -> side -> (file, what it imports of it)."""
    found: Uses = defaultdict(lambda: defaultdict(set))
    for side, rooms in SIDES.items():
        for room in rooms:
            for path in sorted((root / room).rglob("*.py")):
                place = path.relative_to(root)
                if room == "models" and place.parts[1] in ("checks", "trials"):
                    continue
                for module, name in imported_kernels(path, place):
                    thing = getattr(import_module(f"outpace.kernels.{module}"), name)
                    if isinstance(thing, ModuleType) or not (inspect.isfunction(thing) or inspect.isclass(thing)):
                        continue
                    home = thing.__module__.removeprefix("outpace.kernels.")
                    found[home][side].add((".".join(place.with_suffix("").parts), name))
    return found


def imported_kernels(path: Path, place: Path) -> list[tuple[str, str]]:
    """(module below kernels, name) of everything that a source imports from there."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not node.module:
            continue
        base = list(place.parent.parts)[: len(place.parent.parts) - node.level + 1] if node.level else []
        parts = [*base, *node.module.split(".")]
        if parts[0] == "outpace":
            parts = parts[1:]
        if parts[0] == "kernels" and len(parts) > 1:
            names += [(".".join(parts[1:]), alias.name) for alias in node.names]
    return names


def shared(found: Uses) -> list[str]:
    """The kernels that both sides use."""
    return sorted(home for home, sides in found.items() if set(sides) == set(SIDES))


def page(root: Path = ROOT) -> str:
    """docs/kernels.md."""
    found = uses(root)
    both = shared(found)
    lines = [INTRO, f"## Used by both sides: {len(both)}", "", *table(found, both, "diffusion", "companions")]
    for side, title in (("diffusion", "the diffusion side alone"), ("companions", "companion models alone")):
        alone = sorted(home for home, sides in found.items() if set(sides) == {side})
        lines += ["", f"## Used by {title}: {len(alone)}", "", *table(found, alone, side)]
    return "\n".join(lines) + "\n"


def table(found: Uses, homes: list[str], *sides: str) -> list[str]:
    """A row for each kernel: what it is, and who uses it."""
    lines = [f"| kernel | what it is | {' | '.join(sides)} |", f"| --- | --- |{' --- |' * len(sides)}"]
    for home in homes:
        about = (import_module(f"outpace.kernels.{home}").__doc__ or "").strip().splitlines()[0].rstrip(".,;")
        users = [", ".join(f"`{user}`" for user in sorted({file for file, _ in found[home][side]})) for side in sides]
        names = sorted({name for side in sides for _, name in found[home][side]})
        lines.append(f"| `{home}`: {', '.join(f'`{name}`' for name in names)} | {about} | {' | '.join(users)} |")
    return lines
