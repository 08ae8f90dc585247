"""Takes pictures of the page of `outpace serve flux` as a browser shows it: python docs/serve_screenshots.py [docs/img]

serve_wide.png (1400 pixels) and serve_narrow.png (390) are made with Chromium, after somebody asked for a picture.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import uvicorn
from PIL import Image
from screenshots import COLOURS, browser

from outpace.errors import OutpaceError
from outpace.serve import app
from outpace.serve.engine import EngineSettings
from outpace.serve.local import LocalMaker
from outpace.serve.running import bound

SIZES = {"wide": (1400, 820), "narrow": (390, 790)}
PROMPT = "a blue circle above a yellow circle on black"
ACT = f'at("prompt").value = "{PROMPT}"; at("quality").value = "low"; at("seed").value = 1; at("make").click();'


def photograph(address: str, size: tuple[int, int], program: str) -> Image.Image:
    """The page at `address` in a window of `size`, once both pictures are there."""
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "picture.png"
        shown = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=60000"]
        window = [f"--window-size={size[0]},{size[1]}", f"--user-data-dir={folder}/profile", f"--screenshot={picture}"]
        subprocess.run([program, *shown, *window, address], capture_output=True, timeout=300, check=True)
        return Image.open(io.BytesIO(picture.read_bytes())).convert("RGB")


def take(out: Path) -> list[Path]:
    """Both pictures, written to `out`."""
    program, made = browser(), []
    maker = LocalMaker(EngineSettings(pipeline="flux"))
    with tempfile.TemporaryDirectory() as folder, bound("127.0.0.1", 0) as listening:
        acted = Path(folder) / "page.html"
        page = app.PAGE.read_text(encoding="utf-8")
        acted.write_text(page.replace("</body>", f"<script>{ACT}</script></body>"), encoding="utf-8")
        app.PAGE = acted
        server = uvicorn.Server(uvicorn.Config(app.create_app(maker), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        listening.listen()
        thread.start()
        for name, size in SIZES.items():
            made.append(out / f"serve_{name}.png")
            picture = photograph(f"http://127.0.0.1:{listening.getsockname()[1]}", size, program)
            picture.quantize(COLOURS, dither=Image.Dither.NONE).save(made[-1], optimize=True)
        server.should_exit = True
        thread.join(timeout=20)
    maker.close()
    return made


if __name__ == "__main__":
    try:
        for path in take(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/img")):
            print(path)
    except OutpaceError as error:
        raise SystemExit(f"Error: {error}") from error
