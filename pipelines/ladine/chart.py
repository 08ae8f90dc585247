"""A picture with the classes it may show: a bar and an interval each, as one image that anyone can read."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .sampling import Answer

SIDE = 240
"""Of the picture, enlarged."""
LEFT, TOP, ROW, LENGTH, MARGIN = 292, 20, 24, 200, 20
"""Where the bars begin, how far apart they lie, how long one of probability 1 is, and the space around."""
INK, QUIET, BEST, OTHER = (28, 32, 36), (98, 105, 111), (7, 128, 106), (176, 184, 190)


def draw_chart(picture_CYX: np.ndarray, said: Answer, index: int, names: list[str]) -> np.ndarray:
    """(Y, X, 3) in 0..1: what was classified on the left, the probability of each class on the right.

    A bar is the probability; the line through it spans the middle 95 % of what single samples say.
    """
    height = max(SIDE + 2 * MARGIN, 2 * TOP + ROW * len(names))
    sheet = Image.new("RGB", (LEFT + LENGTH + 78, height), (252, 252, 251))
    pixels = (picture_CYX.transpose(1, 2, 0).clip(0, 1) * 255).round().astype(np.uint8)
    shown = Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
    sheet.paste(shown.resize((SIDE, SIDE), Image.Resampling.NEAREST).convert("RGB"), (MARGIN, MARGIN))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    chances, low, high = (part[index].tolist() for part in (said.probabilities, said.low, said.high))
    for row, name in enumerate(names):
        y, chosen = TOP + ROW * row + ROW // 2, chances[row] == max(chances)
        pen.text((LEFT - 8, y), name, fill=INK, font=font, anchor="rm")
        pen.rectangle((LEFT, y - 7, LEFT + round(LENGTH * chances[row]), y + 7), fill=BEST if chosen else OTHER)
        ends = (LEFT + round(LENGTH * low[row]), LEFT + round(LENGTH * high[row]))
        pen.line((ends[0], y, ends[1], y), fill=INK)
        for end in ends:
            pen.line((end, y - 4, end, y + 4), fill=INK)
        if chances[row] >= 0.005:
            beyond = max(LEFT + round(LENGTH * chances[row]), ends[1]) + 6
            pen.text((beyond, y), f"{chances[row]:.2f}", fill=INK if chosen else QUIET, font=font, anchor="lm")
    return np.asarray(sheet, dtype=np.float32) / 255


def read_chart(chart_YXC: np.ndarray, classes: int) -> int:
    """The class that `draw_chart` marked as the likeliest: the row with the coloured bar."""
    apart = np.abs(chart_YXC - np.array(BEST, dtype=np.float32) / 255).max(axis=-1)
    return int(np.argmax([(apart[TOP + ROW * row : TOP + ROW * (row + 1)] < 0.02).sum() for row in range(classes)]))
