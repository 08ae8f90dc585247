"""The report: one page that opens anywhere, and a Markdown table, both made from results.json and saved pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...files import is_there, read_bytes, write_text
from ..atomic import make_folder
from ..calibration import KIND as CALIBRATION
from ..results import SCHEMA
from ..shape import check_results
from .calibration import calibration_markdown, calibration_page
from .contact import contact_sheet
from .markdown import markdown
from .page import page

__all__ = ["load_results", "markdown", "render"]


def render(results: dict[str, Any], folder: Path | str) -> Path:
    """Write report.html, report.md and contact.png into `folder`, whose `pictures/` are shown; nothing is run.

    Args:
        results: what `build_results` or `calibration_results` made, or `load_results` read.
        folder: the study's folder.

    Returns: where report.html is.
    Raises: InputError for results of another schema, or a folder that cannot be written to.
    """
    if results.get("kind") == CALIBRATION:
        home = make_folder(Path(folder))
        write_text(home / "report.md", calibration_markdown(results))
        write_text(home / "report.html", calibration_page(results))
        return home / "report.html"
    check_schema(results)
    home = make_folder(Path(folder))
    write_text(home / "report.md", markdown(results))
    path = home / "report.html"
    write_text(path, page(results, home))
    sheet = contact_sheet(results, home)
    if sheet is not None:
        sheet.save(home / "contact.png")
    return path


def load_results(folder: Path | str) -> dict[str, Any]:
    """results.json of `folder`, or that file itself, held to its shape.

    Raises: InputError where there is none, it cannot be read, or something in it is missing or of another kind.
    """
    path = Path(folder) if is_there(folder) and Path(folder).is_file() else Path(folder) / "results.json"
    again = f"make it again with 'outpace compare PIPELINE --out {folder}'"
    if not is_there(path):
        raise InputError(f"'{path}' does not exist; make it with 'outpace compare PIPELINE --out {folder}'")
    try:
        results = json.loads(read_bytes(path).decode("utf-8-sig"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"'{path}' is not JSON ({str(error)[:80]}); {again}") from error
    if not isinstance(results, dict):
        raise InputError(f"'{path}' holds no JSON object; {again}")
    calibration = results.get("kind") == CALIBRATION
    if not calibration:
        check_schema(results)
    try:
        check_results(results, calibration=calibration)
    except InputError as error:
        raise InputError(f"'{path}' is damaged: {error}; {again}") from error
    return results


def check_schema(results: dict[str, Any]) -> None:
    """Raises: InputError for results of another schema."""
    if results.get("schema") != SCHEMA:
        raise InputError(f"these results have schema {results.get('schema')!r}; this outpace reads schema {SCHEMA}")


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is no number of JSON")
