"""Draws the README's picture from a finished comparison: python docs/picture.py out/demo [docs/img/other.png]

Rows are the plain pipeline and, near one speed-up, ours and its rivals; columns are prompts. What is written beside a
row comes from the comparison's results.json.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "img" / "comparison.png"
KINDS = ("scheduled", "gated", "interval", "fewer-steps")
"""Kinds of contenders shown under the plain pipeline, in this order, where the comparison has them."""
SPEEDUP = 2.5
COLUMNS = 8


def chosen(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The plain pipeline, then of each kind the contender nearest to SPEEDUP on its first curve."""
    ran = [c for c in results["contenders"] if not c["error"] and c["speedup"]]
    rows = [c for c in ran if c["name"] == results["study"]["plain"]]
    for kind in KINDS:
        members = [c for c in ran if c["kind"] == kind]
        curve = [c for c in members if c["curve"] == members[0]["curve"]]  # a kind's first curve has default settings
        rows += sorted(curve, key=lambda c: abs(c["speedup"]["value"] - SPEEDUP))[:1]
    return rows


def beside(results: dict[str, Any], contender: dict[str, Any]) -> str:
    """What a row says about itself."""
    if contender["name"] == results["study"]["plain"]:
        return f"{results['pipeline']['name']}, plain\n{contender['steps']} steps"
    quality = contender["metrics"][results["study"]["plain"]]["psnr"]
    return (
        f"{contender['label']}\n{contender['speedup']['value']:.2f}x fewer blocks\n{quality['value']:.1f} dB to plain"
    )


def draw(folder: Path, picture: Path = PICTURE) -> Path:
    """Draw the comparison in `folder`. Raises: InputError where it is none."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.image
    import matplotlib.pyplot as plt

    from outpace.evaluation.report import load_results

    results = load_results(folder)
    rows, indices = chosen(results), [request["index"] for request in results["requests"]][:COLUMNS]
    figure, axes = plt.subplots(
        len(rows), len(indices), figsize=(1.9 + 1.1 * len(indices), 1.15 * len(rows)), squeeze=False
    )
    for contender, line in zip(rows, axes, strict=True):
        for index, axis in zip(indices, line, strict=True):
            axis.imshow(
                matplotlib.image.imread(folder / "pictures" / contender["name"] / f"{index:04d}.png"),
                cmap="gray",
                interpolation="nearest",
            )
            axis.axis("off")
        line[0].text(
            -0.1, 0.5, beside(results, contender), transform=line[0].transAxes, ha="right", va="center", fontsize=8
        )
    figure.subplots_adjust(
        left=1.8 / figure.get_figwidth(), right=0.995, top=0.99, bottom=0.01, wspace=0.05, hspace=0.05
    )
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=110, facecolor="white")
    plt.close(figure)
    return picture


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        raise SystemExit("usage: python docs/picture.py FOLDER [PICTURE], where 'outpace compare --out FOLDER' was run")
    print(draw(Path(sys.argv[1]), *map(Path, sys.argv[2:])))
