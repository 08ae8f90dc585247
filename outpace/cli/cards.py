"""The first lines of every companion model's card, read off the source: importing the models would take seconds.

A card is written as literals, `MODELS.add("gam", Companion(title="...", source="...", summary="..."))`; what is read
here is held to the registry by a test. A model that is registered in another way is looked up in the registry instead.
"""

from __future__ import annotations

import ast
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

FIELDS = ("summary", "source")


def read_cards() -> dict[str, dict[str, str]]:
    """{model: {"summary", "source"}}, in the order of their names."""
    found: dict[str, dict[str, str]] = {}
    for path in [*home().glob("*.py"), *home().glob("*/__init__.py")]:
        text = path.read_text(encoding="utf-8")
        if "MODELS.add(" not in text or path.stem == "companion":
            continue
        cards = [card for node in ast.walk(ast.parse(text)) if (card := _card(node)) is not None]
        if len(cards) != text.count("MODELS.add("):
            return registered()
        found |= dict(cards)
    return dict(sorted(found.items()))


def registered() -> dict[str, dict[str, str]]:
    """The same from the registry itself."""
    from outpace.models import MODELS

    return {name: {field: getattr(model, field) for field in FIELDS} for name, model in sorted(MODELS.items())}


def verdict(name: str) -> str:
    """What came of trying the claim of a model's paper."""
    try:
        results = json.loads((home() / "trials" / "results" / f"{name}.json").read_text(encoding="utf-8"))
        return str(results["verdict"])
    except FileNotFoundError:
        return "not tried yet"
    except (OSError, ValueError, KeyError, TypeError):
        return "its file of results is damaged"


def home() -> Path:
    """Where the models lie, without importing them."""
    spec = find_spec("outpace.models")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


def _card(node: ast.AST) -> tuple[str, dict[str, str]] | None:
    if not (isinstance(node, ast.Call) and ast.unparse(node.func) == "MODELS.add" and len(node.args) == 2):
        return None
    name, made = node.args
    if not isinstance(made, ast.Call):
        return None
    given: dict[str | None, Any] = {word.arg: word.value for word in made.keywords}
    try:
        return ast.literal_eval(name), {field: ast.literal_eval(given[field]) for field in FIELDS}
    except (ValueError, KeyError):
        return None
