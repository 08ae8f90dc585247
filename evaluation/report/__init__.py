"""The report: one page that opens anywhere, and a Markdown table, both made from results.json and saved pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...errors import InputError
from ...files import write_text
from ..atomic import make_folder, read_json
from ..calibration import KIND as CALIBRATION
from ..results import SCHEMA
from .calibration import calibration_markdown, calibration_page
from .markdown import markdown
from .page import page

__all__ = ["load_results", "markdown", "render"]


def render(results: dict[str, Any], folder: Path | str) -> Path:
    """Write report.html and report.md into `folder`, whose `pictures/` are shown; nothing is run.

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
    if results.get("schema") != SCHEMA:
        raise InputError(f"these results have schema {results.get('schema')!r}; this outpace reads schema {SCHEMA}")
    home = make_folder(Path(folder))
    write_text(home / "report.md", markdown(results))
    path = home / "report.html"
    write_text(path, page(results, home))
    return path


def load_results(folder: Path | str) -> dict[str, Any]:
    """results.json of `folder`, or that file itself. Raises: InputError where there is none, or it cannot be read."""
    path = Path(folder) if Path(folder).is_file() else Path(folder) / "results.json"
    if not path.is_file():
        raise InputError(f"{path} does not exist; make it with 'outpace compare PIPELINE --out {folder}'")
    results = read_json(path)
    if not isinstance(results, dict):
        raise InputError(f"{path} is not JSON; make it again with 'outpace compare PIPELINE --out {folder}'")
    return results
