"""A contact sheet for pull requests, as PNG: sentence, tiles, and a few requests through plain, ours and rivals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from .curves import foremost
from .first import first_screen
from .pictures import Album, quality_of, representatives, shown_requests

SIDE, GAP, MARGIN = 160, 12, 24
COLUMNS, ROWS = 5, 3
INK, QUIET, PAGE = (28, 32, 36), (98, 105, 111), (255, 255, 255)
TEXT = ImageFont.load_default(15)
LARGE = ImageFont.load_default(22)


def contact_sheet(results: dict[str, Any], folder: Path) -> Image.Image | None:
    """The sheet; None where nothing of ours ran or no picture was kept."""
    first = first_screen(results)
    if first is None:
        return None
    study = results["study"]
    album = Album(folder, SIDE, clips=results["pipeline"]["kind"] == "video")
    by_name = {c["name"]: c for c in results["contenders"]}
    others = [c for c in representatives(results) if c["name"] != first["name"] and c["curve"] != first["curve"]]
    coloured = foremost(results)
    others.sort(key=lambda c: (c["kind"] != "fewer-steps", c["curve"] not in coloured))  # the rivals that matter most
    columns = [by_name[study["plain"]], by_name[first["name"]], *others][:COLUMNS]
    rows = [(words, request) for words, request in shown_requests(results, [columns[1]])][:ROWS]
    if album.open(study["plain"], rows[0][1]["index"]) is None:
        return None
    width = max(2 * MARGIN + len(columns) * (SIDE + GAP), 760)
    top = MARGIN + 34 + 64 + 44
    sheet = Image.new("RGB", (width, top + len(rows) * (SIDE + 34) + MARGIN), PAGE)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN), fitted(pen, first["sentence"], LARGE, width - 2 * MARGIN), INK, LARGE)
    for place, tile in enumerate(first["tiles"]):
        x = MARGIN + place * (width - 2 * MARGIN) // 3
        room = (width - 2 * MARGIN) // 3 - GAP
        pen.text((x, MARGIN + 38), f"{tile['name']}: {tile['value']}", INK, TEXT)
        pen.text((x, MARGIN + 58), fitted(pen, tile["said"], TEXT, room), QUIET, TEXT)
    for place, contender in enumerate(columns):
        x = MARGIN + place * (SIDE + GAP)
        pen.text((x, top - 40), fitted(pen, contender["label"], TEXT, SIDE), INK, TEXT)
        speed = contender["speedup"]
        words = "" if contender["name"] == study["plain"] or not speed else f"{speed['value']:.1f}x fewer blocks"
        pen.text((x, top - 20), words, QUIET, TEXT)
        for row, (_, request) in enumerate(rows):
            y = top + row * (SIDE + 34)
            picture = album.open(contender["name"], request["index"])
            if picture is not None:
                frames = album.frames_of(picture)
                frame = picture.convert("RGB").crop((0, 0, picture.width // frames, picture.height))
                sheet.paste(frame.resize((SIDE, SIDE * frame.height // frame.width), Image.Resampling.NEAREST), (x, y))
            value = quality_of(contender, request["index"], study["plain"], study["headline"])
            said = str(request["prompt"]) if contender["name"] == study["plain"] else ""
            said = said if value is None else f"{value:.1f} {results['metrics'][study['headline']]['unit']}"
            pen.text((x, y + SIDE + 4), fitted(pen, said, TEXT, SIDE), QUIET, TEXT)
    return sheet


def fitted(pen: ImageDraw.ImageDraw, words: str, font: Any, room: float) -> str:
    """`words`, cut where they would not fit into `room` pixels."""
    if pen.textlength(words, font) <= room:
        return words
    while words and pen.textlength(words + "…", font) > room:
        words = words[:-1]
    return words.rstrip(" ,") + "…"
