"""Checks a built site: every local link, picture and anchor leads somewhere. python docs/check_links.py build/site"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The links of a page and what they may lead to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.anchors |= {value for value in (given.get("id"), given.get("name")) if value}
        for name in ("href", "src"):
            value = given.get(name)
            if value and tag != "base":
                self.links.append(value)


def broken_links(site: Path) -> list[str]:
    """Every local link of the site that leads nowhere, as "page: link"."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or link.startswith("/"):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            wanted = unquote(parts.fragment)
            lost = wanted and target in pages and wanted not in pages[target].anchors and not wanted.startswith("__")
            if not target.exists() or lost:
                found.append(f"{path.relative_to(site)}: {link}")
    return found


def main() -> None:
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        raise SystemExit("usage: python docs/check_links.py FOLDER, where a site was built")
    site = Path(sys.argv[1]).resolve()
    found = broken_links(site)
    if found:
        raise SystemExit("links that lead nowhere:\n" + "\n".join(found))
    print(f"every link of {len(list(site.rglob('*.html')))} pages leads somewhere")


if __name__ == "__main__":
    main()
