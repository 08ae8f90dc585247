"""Pictures for the report, each embedded once: who stands beside whom, on which requests, and the worst cases."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features

from ..pareto import nearest_of_each

ROWS, LEAST_ROWS, COLUMNS = 12, 3, 12
"""Most requests shown, requests that pictures are made smaller for, and most contenders shown."""

WIDEST = (384, 256, 192, 128, 96)
"""Pixels; wider pictures are scaled down, frames of clips to half of it. The first that leaves room is taken."""

BUDGET = 1_400_000
"""Characters that all pictures may take up in the page."""

AMPLIFIED = 8
"""How much differences are magnified."""

STRIP = 6
"""Frames in the strip of a clip that does not tell how many it has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A picture that the page holds."""

    name: str
    """The CSS class that shows it."""

    ratio: float
    """Width over height, of one frame."""

    frames: int
    """How many stand side by side; 1 for a picture."""


class Album:
    """The saved pictures of a study, as style rules; a picture that is asked for again is not embedded again.

    Args:
        folder: the study's folder, with `pictures/<contender>/<index>.png`.
        widest: pixels; what is wider is scaled down.
        clips: whether these are strips of frames.
        prefix: of the names of the rules, another one for every album of a page.
    """

    def __init__(self, folder: Path, widest: int, *, clips: bool, prefix: str = "p") -> None:
        self.folder, self.widest, self.clips, self.prefix = Path(folder), widest, clips, prefix
        self.held: dict[tuple[str, ...], Picture | None] = {}
        self.rules: list[str] = []

    @property
    def size(self) -> int:
        """Characters of all rules."""
        return sum(map(len, self.rules))

    def open(self, contender: str, index: int) -> Image.Image | None:
        """The saved picture, or None where there is none that is whole."""
        path = self.folder / "pictures" / contender / f"{index:04d}.png"
        try:
            found = Image.open(path)
            found.load()
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            return None
        return found

    def picture(self, contender: str, index: int) -> Picture | None:
        """What `contender` made for request `index`, or None."""
        key = (contender, str(index))
        if key not in self.held:
            found = self.open(contender, index)
            self.held[key] = None if found is None else self.embed(found.convert("RGB"), self.frames_of(found))
        return self.held[key]

    def difference(self, contender: str, reference: str, index: int) -> Picture | None:
        """|made - reference| magnified, taken before anything is scaled or compressed; or None."""
        key = (contender, reference, str(index))
        if key not in self.held:
            made, truth = self.open(contender, index), self.open(reference, index)
            if made is None or truth is None or made.size != truth.size:
                self.held[key] = None
            else:
                pair = (np.asarray(p.convert("RGB"), dtype=np.float64) for p in (made, truth))
                gap = (np.abs(np.subtract(*pair)) * AMPLIFIED).clip(0, 255).astype(np.uint8)
                self.held[key] = self.embed(Image.fromarray(gap), self.frames_of(made))
        return self.held[key]

    def frames_of(self, picture: Image.Image) -> int:
        """How many frames `picture` shows side by side."""
        return int(picture.info.get("frames", STRIP)) if self.clips else 1

    def embed(self, picture: Image.Image, frames: int) -> Picture:
        """Add a rule that shows `picture`."""
        widest = frames * self.widest // 2 if frames > 1 else self.widest
        held = Picture(
            name=f"{self.prefix}{len(self.rules)}", ratio=picture.width / frames / picture.height, frames=frames
        )
        self.rules.append(f".{held.name}{{background-image:url({data_address(picture, widest)})}}")
        return held


def data_address(picture: Image.Image, widest: int) -> str:
    """`picture` as data:image/...;base64: lossless while it is small, scaled down where it is large."""
    small = picture.width <= widest
    if not small:
        size = (widest, max(1, round(picture.height * widest / picture.width)))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    form = "WEBP" if features.check("webp") else "PNG"
    buffer = io.BytesIO()
    picture.save(buffer, format=form, **({"lossless": small, "quality": 85} if form == "WEBP" else {}))
    return f"data:image/{form.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def representatives(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Those asked for by name, then one contender a curve, the one nearest to the middle of the compared speed-ups,
    ours first; no more than COLUMNS."""
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
    chosen.sort(key=lambda c: (not c.get("shown"), not results["kinds"][c["kind"]]["ours"]))
    return chosen[:COLUMNS]


def quality_of(contender: dict[str, Any], index: int, reference: str, metric: str) -> float | None:
    """The metric of one sample, where it was measured."""
    for sample in contender.get("samples", []):
        if sample["index"] == index:
            return sample["metrics"].get(reference, {}).get(metric)
    return None


def shown_requests(results: dict[str, Any], chosen: Sequence[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Requests with their place in words, the worst, the middle and the best in turn, by their mean over `chosen`."""
    study = results["study"]
    mean = {}
    for request in results["requests"]:
        values = [quality_of(c, request["index"], study["plain"], study["headline"]) for c in chosen]
        finite = [value for value in values if value is not None]
        mean[request["index"]] = float(np.mean(finite)) if finite else float("-inf")
    order = sorted(results["requests"], key=lambda r: mean[r["index"]])
    places = range(len(order))
    middle = sorted(places, key=lambda place: abs(place - (len(order) - 1) / 2))
    found: dict[int, str] = {}
    for turn in zip(places, middle, reversed(places), strict=True):
        for words, place in zip(("among the worst", "in the middle", "among the best"), turn, strict=True):
            found.setdefault(place, words)
    return [(words, order[place]) for place, words in found.items()][:ROWS]


def gallery(results: dict[str, Any], folder: Path) -> dict[str, Any]:
    """All that the page shows in pictures, within BUDGET: fewer requests where pictures are large, then smaller ones.

    Returns: "heads" and "rows" of the grid, references first, "worst", and "rules", the pictures themselves.
    """
    *larger, smallest = WIDEST
    for widest in larger:
        made = filled(results, Album(folder, widest, clips=results["pipeline"]["kind"] == "video"))
        enough = len(made["rows"]) >= min(LEAST_ROWS, len(results["requests"]))
        if enough and sum(map(len, made["rules"])) <= BUDGET:
            return made
    return filled(results, Album(folder, smallest, clips=results["pipeline"]["kind"] == "video"))


def filled(results: dict[str, Any], album: Album) -> dict[str, Any]:
    """What `gallery` returns, with `album` filled request by request until the next would not fit."""
    chosen = representatives(results)
    worst = worst_cases(results, chosen, album)
    rows: list[dict[str, Any]] = []
    largest = 0
    for words, request in shown_requests(results, chosen):
        if album.size + largest > BUDGET:
            break
        before = album.size
        rows.append(grid_row(results, chosen, album, request) | {"place": words})
        largest = max(largest, album.size - before)
    heads = [{key: c[key] for key in ("label", "speedup", "curve", "kind")} for c in (*references_of(results), *chosen)]
    return {"heads": heads, "rows": rows, "worst": worst, "rules": album.rules}


def references_of(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The plain pipeline, and the converged solution where there is one."""
    by_name = {c["name"]: c for c in results["contenders"]}
    return [by_name[name] for name in results["study"]["references"]]


def grid_row(
    results: dict[str, Any], chosen: Sequence[dict[str, Any]], album: Album, request: dict[str, Any]
) -> dict[str, Any]:
    """{"prompt", "seed", "cells": [{"picture", "difference", "value"}]} of one request."""
    study, index = results["study"], request["index"]
    cells = [
        {
            "picture": album.picture(c["name"], index),
            "difference": album.difference(c["name"], study["plain"], index) if c["name"] != study["plain"] else None,
            "value": quality_of(c, index, study["plain"], study["headline"]),
        }
        for c in (*references_of(results), *chosen)
    ]
    return {"prompt": request["prompt"], "seed": request["seed"], "cells": cells}


def worst_cases(results: dict[str, Any], chosen: Sequence[dict[str, Any]], album: Album) -> list[dict[str, Any]]:
    """For each shown contender the sample furthest from the plain pipeline's: plain, made, difference magnified."""
    study = results["study"]
    requests = {r["index"]: r for r in results["requests"]}
    shown = []
    for c in chosen:
        index = c["worst"].get(study["plain"])
        if index is None:
            continue
        shown.append(
            {
                "label": c["label"],
                "curve": c["curve"],
                "prompt": requests[index]["prompt"],
                "seed": requests[index]["seed"],
                "value": quality_of(c, index, study["plain"], study["headline"]),
                "plain": album.picture(study["plain"], index),
                "made": album.picture(c["name"], index),
                "difference": album.difference(c["name"], study["plain"], index),
            }
        )
    return shown
