"""Moving shapes: procedural clips, their captions, and the checker that reads a clip back.

One coloured shape crosses a dark frame: "a blue square moves left slowly", on a `Stage` that says how large, how long
and in front of what. A sixth of the colour, shape and direction combinations is never trained on, so that a caption can
be new while each of its words is known. The checker looks at pixels only; it is how the conditioning accuracy on the
model card is read.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from scipy import ndimage

from ...errors import ConfigError, InputError

COLOURS = {
    "red": (0.92, 0.10, 0.10),
    "green": (0.10, 0.75, 0.15),
    "blue": (0.12, 0.25, 0.95),
    "yellow": (0.95, 0.88, 0.10),
    "purple": (0.72, 0.15, 0.85),
    "white": (0.93, 0.93, 0.93),
}
SHAPES = ("circle", "square", "triangle")
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
SPEEDS = {"slowly": (0.60, 0.80), "quickly": (1.45, 1.65)}
"""Pixels a frame, from and to."""
BACKGROUND = 0.06
SLOW_BELOW_PIXELS = 9 / 8
"""Travel in a frame that parts slow from quick."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """Where the shape moves."""

    frames: int = 9
    side: int = 32
    """Pixels of height and of width."""
    ceiling: float = BACKGROUND
    """Brightest level of the background. Above BACKGROUND it is a soft random texture, another one in every clip."""

    @property
    def bright(self) -> float:
        """A pixel with a channel above this belongs to the shape."""
        return self.ceiling + 0.3


SMALL = Stage()

FOLD = 1
"""The fold of captions that is held out unless another is asked for."""

Split = Literal["held_out", "train", "calibration"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """What one caption says."""

    colour: str
    """One of COLOURS."""
    shape: str
    """One of SHAPES."""
    direction: str
    """One of DIRECTIONS."""
    speed: str
    """One of SPEEDS."""

    @property
    def caption(self) -> str:
        return f"a {self.colour} {self.shape} moves {self.direction} {self.speed}"

    @property
    def held_out(self) -> bool:
        """Never trained on: for each shape and direction one colour of six, each colour twice."""
        return self.fold == FOLD

    @property
    def fold(self) -> int:
        """Which of six folds it is in."""
        colour, shape = list(COLOURS).index(self.colour), SHAPES.index(self.shape)
        return (colour + 2 * shape + 3 * list(DIRECTIONS).index(self.direction)) % 6

    def labels(self) -> list[int]:
        """The caption as class numbers, in the order of ATTRIBUTES."""
        said = (self.colour, self.shape, self.direction, self.speed)
        return [values.index(word) for values, word in zip(ATTRIBUTES.values(), said, strict=True)]


ATTRIBUTES = {
    "colour": tuple(COLOURS),
    "shape": SHAPES,
    "direction": tuple(DIRECTIONS),
    "speed": tuple(SPEEDS),
}

EVERY_CLIP = tuple(
    Clip(colour=colour, shape=shape, direction=direction, speed=speed)
    for colour in COLOURS
    for shape in SHAPES
    for direction in DIRECTIONS
    for speed in SPEEDS
)


def parse(caption: str) -> Clip:
    """The clip that `caption` describes. Raises: InputError where it is not one of ours."""
    words = caption.split()
    for clip in EVERY_CLIP:
        if clip.caption.split() == words:
            return clip
    raise InputError(
        f"'{caption}' does not describe a clip; write 'a COLOUR SHAPE moves DIRECTION SPEED' with "
        + "; ".join(f"{name}: {', '.join(values)}" for name, values in ATTRIBUTES.items())
    )


def prompts(n: int, split: Split = "held_out", *, fold: int = FOLD) -> list[str]:
    """`n` captions of a split, always the same ones; repeated in turn where `n` exceeds the split (24 held out).

    "train" and "calibration" are the two halves of the captions that were trained on: settings are tuned on the second,
    and figures are read on "held_out" only.

    Args:
        fold: of captions that are held out.
    """
    seen = [clip for clip in EVERY_CLIP if clip.fold != fold]
    random.Random(7).shuffle(seen)
    half = len(seen) // 2
    held_out = [clip for clip in EVERY_CLIP if clip.fold == fold]
    random.Random(8).shuffle(held_out)
    splits = {"held_out": held_out, "train": seen[:half], "calibration": seen[half:]}
    if split not in splits:
        raise ConfigError(f"no split '{split}'; choose one of {', '.join(splits)}")
    return [splits[split][i % len(splits[split])].caption for i in range(n)]


def draw(rng: random.Random, clips: int, *, fold: int = FOLD) -> list[Clip]:
    """`clips` clips to train on, drawn evenly from those not held out."""
    seen = [clip for clip in EVERY_CLIP if clip.fold != fold]
    return [rng.choice(seen) for _ in range(clips)]


def render(clips: list[Clip], rng: random.Random, stage: Stage = SMALL) -> np.ndarray:
    """Pictures of `clips` with place, size, speed and tint drawn from `rng`: (B, T, Y, X, 3) float32 in 0..1."""
    side, frames_of_clip = stage.side, stage.frames
    kind, start, step, radius, tint = [], [], [], [], []
    for clip in clips:
        axis = np.array(DIRECTIONS[clip.direction], dtype=np.float32)
        velocity = rng.uniform(*SPEEDS[clip.speed]) * axis
        reach = (1.0 if clip.speed == "quickly" else 4.0) * side / SMALL.side
        along, across = rng.uniform(-1, 1) * reach, rng.uniform(10 - side / 2, side / 2 - 10)
        centre = side / 2 + along * axis + across * axis[::-1]
        kind.append(SHAPES.index(clip.shape))
        start.append(centre - velocity * (frames_of_clip - 1) / 2)
        step.append(velocity)
        radius.append(rng.uniform(6.0, 7.5))
        tint.append([value + rng.uniform(-0.04, 0.04) for value in COLOURS[clip.colour]])
    frames = np.arange(frames_of_clip, dtype=np.float32)[None, :, None]
    place = np.stack(start)[:, None] + frames * np.stack(step)[:, None]  # (B, T, 2), x before y
    grid = np.arange(side, dtype=np.float32) + 0.5
    x = grid[None, None, None, :] - place[..., 0, None, None]
    y = grid[None, None, :, None] - place[..., 1, None, None]
    r = np.array(radius, dtype=np.float32)[:, None, None, None]
    # Signed distances to the outline, in pixels; half a pixel of ramp is the anti-aliasing.
    circle = np.sqrt(x * x + y * y) - r
    square = np.maximum(np.abs(x), np.abs(y)) - 0.9 * r
    triangle = np.maximum((2 * np.abs(x) - (y + 1.1 * r)) / np.sqrt(5), y - 1.05 * r)
    which = np.array(kind)[:, None, None, None]
    distance = np.where(which == 0, circle, np.where(which == 1, square, triangle))
    cover = np.clip(0.5 - distance, 0, 1)[..., None]
    colour = np.array(tint, dtype=np.float32)[:, None, None, None, :]
    behind = _texture(len(clips), rng, stage) if stage.ceiling > BACKGROUND else BACKGROUND
    return np.clip(behind * (1 - cover) + colour * cover, 0, 1).astype(np.float32)


def _texture(clips: int, rng: random.Random, stage: Stage) -> np.ndarray:
    """Soft random backgrounds, the same in all frames of a clip: (B, 1, Y, X, 3) in BACKGROUND..ceiling."""
    source = np.random.default_rng(rng.getrandbits(64))
    coarse = stage.side // 8 + 1  # one knot every eight pixels
    grey = source.standard_normal((clips, coarse, coarse, 1))
    knots = grey + 0.4 * source.standard_normal((clips, coarse, coarse, 3))
    zoom = stage.side / coarse
    field = cast(np.ndarray, ndimage.zoom(knots, (1, zoom, zoom, 1), order=3))
    middle, half = (stage.ceiling + BACKGROUND) / 2, (stage.ceiling - BACKGROUND) / 2
    return (middle + half * np.clip(field / 2, -1, 1))[:, None].astype(np.float32)


def _object(frame: np.ndarray, stage: Stage) -> np.ndarray | None:
    """The largest bright region of a frame (Y, X, 3) as a mask (Y, X); None where there is none worth reading."""
    regions, count = cast(tuple[np.ndarray, int], ndimage.label(frame.max(-1) > stage.bright))
    if count == 0:
        return None
    sizes = np.bincount(regions.ravel())[1:]
    return regions == 1 + int(sizes.argmax()) if sizes.max() >= 40 else None


def read(media: np.ndarray, stage: Stage = SMALL) -> dict[str, str] | None:
    """What a clip (T, Y, X, 3) in 0..1 shows, or None where no object stays visible in at least half of its frames."""
    masks = [(i, mask) for i, frame in enumerate(media) if (mask := _object(frame, stage)) is not None]
    if len(masks) < max(2, len(media) // 2):
        return None
    palette = np.array(list(COLOURS.values()))
    votes, fills, places = np.zeros(len(palette)), [], []
    for i, mask in masks:
        pixels = media[i][mask]
        votes += np.bincount(((pixels[:, None] - palette) ** 2).sum(-1).argmin(-1), minlength=len(palette))
        ys, xs = np.nonzero(mask)
        fills.append(mask.sum() / ((np.ptp(ys) + 1) * (np.ptp(xs) + 1)))
        places.append((i, xs.mean(), ys.mean()))
    fill = float(np.median(fills))  # of the bounding box: a square 1, a circle 0.79, a triangle 0.5
    (first, x0, y0), (last, x1, y1) = places[0], places[-1]
    dx, dy = x1 - x0, y1 - y0
    travel = max(abs(dx), abs(dy)) / max(last - first, 1)  # in a frame
    horizontal = abs(dx) > abs(dy)
    direction = ("right" if dx > 0 else "left") if horizontal else ("down" if dy > 0 else "up")
    return {
        "colour": list(COLOURS)[int(votes.argmax())],
        "shape": "square" if fill > 0.89 else "circle" if fill > 0.66 else "triangle",
        "direction": direction if travel > 2.5 / 8 else "still",
        "speed": "slowly" if travel < SLOW_BELOW_PIXELS else "quickly",
    }


def check(media: list[np.ndarray], captions: list[str], stage: Stage = SMALL) -> list[dict[str, float]]:
    """Which words of each caption its clip obeys, 1.0 or 0.0 each; all 0.0 where nothing can be seen.

    Shapes: each of `media` (T, Y, X, 3), floats in 0..1.
    """
    if len(media) != len(captions):
        raise InputError(f"{len(media)} clips but {len(captions)} captions; give one caption a clip")
    hits = []
    for clip, caption in zip(media, captions, strict=True):
        said, shown = parse(caption), read(np.asarray(clip, dtype=np.float32), stage) or {}
        hits.append({name: float(shown.get(name) == getattr(said, name)) for name in ATTRIBUTES})
    return hits
