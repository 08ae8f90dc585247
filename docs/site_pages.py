"""What the site needs beyond the pages: README.md as its first page, the pages of results, links out of docs/ as names.

A page of docs/ is read in the repository too, where it links to examples and committed results. The site holds only
docs/, so there such a link becomes the path that it leads to. Used by mkdocs (mkdocs.yml), which `make docs` runs.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def on_config(config: Any) -> Any:
    """The pages of docs/results, one a pipeline, stand behind their index; `make readme` writes them."""
    for part in config["nav"]:
        for pages in part.values():
            if "results.md" in pages:
                place = pages.index("results.md") + 1
                pages[place:place] = result_pages()
    return config


def result_pages() -> list[str]:
    """The pages of docs/results, as the site names them."""
    return [f"results/{path.name}" for path in sorted((ROOT / "docs" / "results").glob("*.md"))]


def on_files(files: Any, config: Any) -> Any:
    """README.md becomes index.md."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, "index.md", content=first_page()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links that leave docs/ become the path that they lead to."""
    return inside(markdown, PurePosixPath(page.file.src_uri).parent)


def first_page(readme: Path = ROOT / "README.md") -> str:
    """README.md as it reads from within docs/."""
    text = readme.read_text(encoding="utf-8")
    text = re.sub(r'(\]\(|src=")docs/', r"\1", text)
    text = re.sub(r"\]\((?!https?:|[a-z_0-9/-]+\.(?:md|png)|img/)([^)#]+)\)", r"](../\1)", text)
    text = text.replace("](CONTRIBUTING.md)", "](../CONTRIBUTING.md)")
    return text.replace("<details>", '<details markdown="1">')


def inside(markdown: str, folder: PurePosixPath) -> str:
    """`markdown` of a page in `folder` of docs/, with links that lead out of docs/ as code."""

    def replaced(found: re.Match[str]) -> str:
        picture, words, target = found.groups()
        if picture or "://" in target or target.startswith("#"):
            return found[0]
        depth = 0
        for part in (folder / target.partition("#")[0]).parts:
            depth += -1 if part == ".." else 1
            if depth < 0:
                path = target.partition("#")[0].lstrip("./")
                return f"{words} (`{path}`)" if words.strip("`") != path else f"`{path}`"
        return found[0]

    return LINK.sub(replaced, markdown)
