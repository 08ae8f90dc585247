"""Takes pictures of a report as a browser shows it: python docs/screenshots.py out/demo [docs/img]

report_1400.png, report_500.png, report_390.png and report_1400_dark.png are made with Chromium and put into the folder
of the report, or into the one named second. They show the first screen of a desk, a small window and a phone.
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
LIGHT, DARK = 1, 0
"""What Chromium calls the two preferred colour schemes."""
SHOTS = {
    "1400": ((1400, 900), LIGHT),
    "500": ((500, 900), LIGHT),
    "390": ((390, 844), LIGHT),
    "1400_dark": ((1400, 900), DARK),
}
"""Window and scheme by name."""
COLOURS = 192
"""Of the palette, which keeps files small."""


def browser() -> str:
    """Where Chromium is. Raises: InputError where none is installed."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise InputError(f"no browser to take pictures with; install Chromium (looked for {', '.join(BROWSERS)})")
    return found


def screenshot(page: Path, size: tuple[int, int], scheme: int = LIGHT, *, program: str | None = None) -> Image.Image:
    """`page` as a window of `size` shows it.

    Args:
        scheme: LIGHT or DARK.
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
    for name, (size, scheme) in SHOTS.items():
        made.append(out / f"report_{name}.png")
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
