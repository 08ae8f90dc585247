"""Pictures for the report: who stands beside whom, the worst cases, and all of it inside the file."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features

from ..pareto import nearest_of_each

ROWS = 6
"""Requests in the side-by-side grid."""

WIDEST = 384
"""Pixels; wider pictures are scaled down for the report, strips of frames to three times this."""

AMPLIFIED = 8
"""How much differences are magnified."""


class Album:
    """The saved pictures of a study.

    Args:
        folder: the study's folder, with `pictures/<contender>/<index>.png`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def open(self, contender: str, index: int) -> Image.Image | None:
        """The saved picture, or None where there is none."""
        path = self.folder / "pictures" / contender / f"{index:04d}.png"
        return Image.open(path).convert("RGB") if path.is_file() else None

    def embed(self, contender: str, index: int) -> str | None:
        """The picture as a data address, or None."""
        picture = self.open(contender, index)
        return None if picture is None else data_address(picture)

    def difference(self, contender: str, reference: str, index: int) -> str | None:
        """|made - reference| magnified, as a data address, or None."""
        made, truth = self.open(contender, index), self.open(reference, index)
        if made is None or truth is None or made.size != truth.size:
            return None
        gap = np.abs(np.asarray(made, dtype=np.float64) - np.asarray(truth, dtype=np.float64)) * AMPLIFIED
        return data_address(Image.fromarray(gap.clip(0, 255).astype(np.uint8)))


def data_address(picture: Image.Image) -> str:
    """`picture` as data:image/...;base64: lossless while it is small, scaled down where it is large."""
    widest = WIDEST * (3 if picture.width > 2 * picture.height else 1)
    small = picture.width <= widest
    if not small:
        size = (widest, max(1, round(picture.height * widest / picture.width)))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    form = "WEBP" if features.check("webp") else "PNG"
    buffer = io.BytesIO()
    picture.save(buffer, format=form, **({"lossless": small, "quality": 90} if form == "WEBP" else {}))
    return f"data:image/{form.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def representatives(results: dict[str, Any]) -> list[dict[str, Any]]:
    """One contender a curve, the one nearest to the middle of the compared speed-ups, and those asked for by name; ours
    first."""
    target = results["study"]["target"]
    runners = {
        c["name"]: c
        for c in results["contenders"]
        if not c["error"] and c["speedup"] and c["kind"] not in ("plain", "converged")
    }
    names = nearest_of_each(
        {name: c["speedup"]["value"] for name, c in runners.items()},
        {name: c["curve"] for name, c in runners.items()},
        target,
    )
    chosen = [c for name, c in runners.items() if name in names or c.get("shown")]
    return sorted(chosen, key=lambda c: not results["kinds"][c["kind"]]["ours"])


def quality_of(contender: dict[str, Any], index: int, reference: str, metric: str) -> float | None:
    """The metric of one sample, where it was measured."""
    for sample in contender.get("samples", []):
        if sample["index"] == index:
            return sample["metrics"].get(reference, {}).get(metric)
    return None


def side_by_side(results: dict[str, Any], album: Album) -> dict[str, Any]:
    """{"heads": [...], "rows": [{"prompt", "cells": [{"image", "value"}]}]}: references first, then one a curve."""
    by_name = {c["name"]: c for c in results["contenders"]}
    study = results["study"]
    chosen = [by_name[name] for name in study["references"]] + representatives(results)
    rows = []
    for request in results["requests"][:ROWS]:
        cells = [
            {
                "image": album.embed(c["name"], request["index"]),
                "value": quality_of(c, request["index"], study["plain"], study["headline"]),
            }
            for c in chosen
        ]
        rows.append({"prompt": request["prompt"], "seed": request["seed"], "cells": cells})
    heads = [{"label": c["label"], "speedup": c["speedup"], "curve": c["curve"], "kind": c["kind"]} for c in chosen]
    return {"heads": heads, "rows": rows}


def worst_cases(results: dict[str, Any], album: Album) -> list[dict[str, Any]]:
    """For each shown contender the sample furthest from the plain pipeline's: plain, made, difference magnified."""
    study = results["study"]
    prompts = {r["index"]: r for r in results["requests"]}
    shown = []
    for c in representatives(results):
        index = c["worst"].get(study["plain"])
        if index is None:
            continue
        shown.append(
            {
                "label": c["label"],
                "curve": c["curve"],
                "prompt": prompts[index]["prompt"],
                "seed": prompts[index]["seed"],
                "value": quality_of(c, index, study["plain"], study["headline"]),
                "plain": album.embed(study["plain"], index),
                "made": album.embed(c["name"], index),
                "difference": album.difference(c["name"], study["plain"], index),
            }
        )
    return shown
