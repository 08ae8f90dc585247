"""Takes pictures of a report as a browser shows it: python docs/screenshots.py out/demo [docs/img]

report_wide.png and report_narrow.png, and both in dark, are made with Chromium and put into the report's folder, or
into the one named second. They show the top of the page.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from outpace.errors import InputError, OutpaceError

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge")
SIZES = {"wide": (1280, 3000), "narrow": (390, 2600)}
SCHEMES = {"": 1, "_dark": 0}
"""What Chromium calls the two preferred colour schemes."""
COLOURS = 192
"""Of the palette, which keeps files small."""


def browser() -> str:
    """Where Chromium is. Raises: InputError where none is installed."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise InputError(f"no browser to take pictures with; install Chromium (looked for {', '.join(BROWSERS)})")
    return found


def screenshot(page: Path, size: tuple[int, int], scheme: int = 1, *, program: str | None = None) -> Image.Image:
    """`page` as a window of `size` shows it.

    Args:
        scheme: a value of SCHEMES.
        program: the browser; found where it is None.

    Raises: InputError where there is no page, no browser, or no picture came of it.
    """
    if not page.is_file():
        raise InputError(f"{page} does not exist; make it with 'outpace report {page.parent}'")
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "picture.png"
        command = [
            program or browser(),
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--user-data-dir={folder}/profile",
            f"--blink-settings=preferredColorScheme={scheme}",
            f"--window-size={size[0]},{size[1]}",
            f"--screenshot={picture}",
            page.resolve().as_uri(),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if not picture.is_file():
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise InputError(f"{command[0]} took no picture of {page}: {last}")
        return Image.open(io.BytesIO(picture.read_bytes())).convert("RGB")


def take(folder: Path, out: Path) -> list[Path]:
    """All four pictures of the report in `folder`, written to `out`."""
    program = browser()
    out.mkdir(parents=True, exist_ok=True)
    made = []
    for shape, size in SIZES.items():
        for suffix, scheme in SCHEMES.items():
            made.append(out / f"report_{shape}{suffix}.png")
            picture = screenshot(folder / "report.html", size, scheme, program=program)
            picture.quantize(COLOURS, dither=Image.Dither.NONE).save(made[-1], optimize=True)
    return made


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        raise SystemExit("usage: python docs/screenshots.py FOLDER [OUT], where 'outpace compare --out FOLDER' was run")
    try:
        for path in take(Path(sys.argv[1]), Path(sys.argv[-1])):
            print(path)
    except OutpaceError as error:
        raise SystemExit(f"Error: {error}") from error
