"""Procedural scenes: one or two coloured shapes on a plain ground, their captions, and the checker that reads them.

"a red circle left of a blue square on grey" describes a picture of 48 x 48 pixels. An eighth of the pairs of things
is never trained on, in either order, so that a caption can be new while each of its words is known. The checker looks
at pixels only; it is how the conditioning accuracy on the model card is read.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch
from scipy import ndimage

from ...errors import ConfigError, InputError

COLOURS = {
    "red": (0.90, 0.10, 0.10),
    "green": (0.10, 0.70, 0.15),
    "blue": (0.12, 0.25, 0.92),
    "yellow": (0.95, 0.85, 0.10),
}
SHAPES = ("circle", "square", "triangle")
GROUNDS = {"black": (0.05, 0.05, 0.05), "grey": (0.50, 0.50, 0.50), "white": (0.95, 0.95, 0.95)}
RELATIONS = ("left of", "right of", "above", "below")
SIDE = 48
SPREAD = 11.5
"""Pixels from the middle of the picture to the middle of each of two things."""
JITTER = 1.5
RADIUS = (8.0, 9.0)
"""Pixels, from and to."""

FOLD = 1
"""The fold of pairs that is held out unless another is asked for."""

Split = Literal["held_out", "train", "calibration"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Thing:
    """One coloured shape."""

    colour: str
    shape: str

    @property
    def number(self) -> int:
        """Its index among all things."""
        return list(COLOURS).index(self.colour) * len(SHAPES) + SHAPES.index(self.shape)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """What one caption says."""

    first: Thing
    ground: str
    relation: str | None = None
    """Where `first` is, seen from `second`; None where there is no second."""
    second: Thing | None = None

    @property
    def caption(self) -> str:
        words = f"a {self.first.colour} {self.first.shape}"
        if self.second is not None:
            words += f" {self.relation} a {self.second.colour} {self.second.shape}"
        return f"{words} on {self.ground}"

    @property
    def held_out(self) -> bool:
        """Never trained on: 10 of the 78 pairs of things, whichever is named first; every thing is in one or two."""
        return self.fold == FOLD

    @property
    def fold(self) -> int | None:
        """Which of eight folds its pair of things is in; None where it has no pair of different ones."""
        if self.second is None or self.first.number == self.second.number:
            return None
        low, high = sorted((self.first.number, self.second.number))
        return (5 * low + 3 * high) % 8

    def places(self) -> list[tuple[Thing, float, float]]:
        """Each thing with the x and y of its place, in pixels, the left or upper one first."""
        middle = SIDE / 2
        if self.second is None:
            return [(self.first, middle, middle)]
        pair = (self.first, self.second) if self.relation in ("left of", "above") else (self.second, self.first)
        steps = (-SPREAD, SPREAD)
        if self.relation in ("left of", "right of"):
            return [(thing, middle + step, middle) for thing, step in zip(pair, steps, strict=True)]
        return [(thing, middle, middle + step) for thing, step in zip(pair, steps, strict=True)]

    def labels(self) -> list[int]:
        """What is where, as class numbers in the order of LABEL_SIZES: arrangement, ground, what each place shows."""
        arrangement = 0 if self.relation is None else 1 if self.relation in ("left of", "right of") else 2
        numbers = [arrangement, list(GROUNDS).index(self.ground)]
        things = [thing for thing, _, _ in self.places()]
        for slot in range(2):
            if slot < len(things):
                numbers += [list(COLOURS).index(things[slot].colour), SHAPES.index(things[slot].shape)]
            else:
                numbers += [len(COLOURS), len(SHAPES)]
        return numbers


LABEL_SIZES = (3, len(GROUNDS), len(COLOURS) + 1, len(SHAPES) + 1, len(COLOURS) + 1, len(SHAPES) + 1)


def draw_scene(source: random.Random, *, split: Split = "train", fold: int = FOLD) -> Scene:
    """A scene of `split`: two things in five of six, always two where held out. "calibration" is like "train".

    Args:
        fold: of pairs that are held out.
    """
    if split not in ("held_out", "train", "calibration"):
        raise ConfigError(f"no split '{split}' (have: held_out, train, calibration)")
    while True:
        two = split == "held_out" or source.random() < 5 / 6
        things = [Thing(colour=source.choice(list(COLOURS)), shape=source.choice(SHAPES)) for _ in range(2)]
        ground = source.choice(list(GROUNDS))
        scene = (
            Scene(first=things[0], relation=source.choice(RELATIONS), second=things[1], ground=ground)
            if two
            else Scene(first=things[0], ground=ground)
        )
        if (scene.fold == fold) == (split == "held_out"):
            return scene


EVERY = 5000
"""Draws in a row that bring nothing new: by then every caption of a split has been given (held out are 240)."""


def scene_captions(count: int, split: Split, *, fold: int = FOLD) -> list[str]:
    """`count` captions of `split`, the same at every call; none twice until `EVERY` draws in a row were known.

    Args:
        fold: of pairs that are held out.
    """
    source = random.Random(f"scenes/{split}" if fold == FOLD else f"scenes/{split}/{fold}")
    captions, known, repeats = [], set(), 0
    while len(captions) < count:
        caption = draw_scene(source, split=split, fold=fold).caption
        if caption in known:
            repeats += 1
            if repeats == EVERY:
                known.clear()
            continue
        captions.append(caption)
        known.add(caption)
        repeats = 0
    return captions


def parse_caption(caption: str) -> Scene:
    """The scene that `caption` describes. Raises: InputError where it is not one of ours."""
    try:
        said, ground = caption.strip().lower().rsplit(" on ", 1)
        relation = next((r for r in RELATIONS if f" {r} " in said), None)
        parts = [said] if relation is None else said.split(f" {relation} ")
        things = []
        for part in parts:
            _, colour, shape = part.split()
            COLOURS[colour], SHAPES.index(shape)
            things.append(Thing(colour=colour, shape=shape))
        GROUNDS[ground]
        first, second = (things[0], None) if relation is None else things
    except (ValueError, KeyError) as error:
        raise InputError(
            f"'{caption}' describes no scene; write one like 'a red circle left of a blue square on grey'"
        ) from error
    return Scene(first=first, relation=relation, second=second, ground=ground)


def render_scenes(scenes: Sequence[Scene], generator: torch.Generator, *, side: int = SIDE) -> torch.Tensor:
    """Anti-aliased pictures (B, 3, side, side) in 0..1, places, sizes and colours varied by `generator`."""
    count = len(scenes)

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    def coloured(values: list[tuple[float, float, float]]) -> torch.Tensor:
        return (torch.tensor(values) + uniform(-0.03, 0.03, 3)).clamp(0, 1)[:, :, None, None]

    pixel = SIDE / side
    axis = (torch.arange(side) + 0.5) * pixel
    pictures = coloured([GROUNDS[s.ground] for s in scenes]).expand(count, 3, side, side)
    placed = [s.places() for s in scenes]
    for slot in range(2):
        there = torch.tensor([len(p) > slot for p in placed])
        things = [p[min(slot, len(p) - 1)] for p in placed]
        kind = torch.tensor([SHAPES.index(t.shape) for t, _, _ in things])[:, None, None]
        x = axis[None, None, :] - (torch.tensor([x for _, x, _ in things]) + uniform(-JITTER, JITTER))[:, None, None]
        y = axis[None, :, None] - (torch.tensor([y for _, _, y in things]) + uniform(-JITTER, JITTER))[:, None, None]
        radius = uniform(*RADIUS, 1, 1)
        circle = (x * x + y * y).sqrt() - radius
        square = torch.maximum(x.abs(), y.abs()) - 0.92 * radius
        triangle = torch.maximum((2 * x.abs() - (y + 1.1 * radius)) / math.sqrt(5), y - radius)
        distance = torch.where(kind == 0, circle, torch.where(kind == 1, square, triangle))
        cover = ((0.5 - distance / pixel).clamp(0, 1) * there[:, None, None])[:, None]
        pictures = pictures * (1 - cover) + coloured([COLOURS[t.colour] for t, _, _ in things]) * cover
    return pictures


@dataclass(frozen=True, kw_only=True, slots=True)
class SeenThing:
    """One connected patch that stands out from the ground."""

    colour: str
    shape: str
    x: float
    y: float


def read_scene(picture: np.ndarray) -> tuple[str, list[SeenThing]]:
    """The ground and the things on a picture (48, 48, 3), floats in 0..1."""
    edge = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    level = np.median(edge, axis=0)
    ground = min(GROUNDS, key=lambda name: float(np.square(level - GROUNDS[name]).sum()))
    patches, _ = cast(tuple[np.ndarray, int], ndimage.label(np.abs(picture - level).max(-1) > 0.25))
    seen = []
    for number, box in enumerate(ndimage.find_objects(patches), start=1):
        inside = patches == number
        area = int(inside.sum())
        if area < 50:
            continue
        height, width = (edges.stop - edges.start for edges in box)
        filled = area / (height * width)
        tint = np.median(picture[inside], axis=0)
        rows, columns = np.nonzero(inside)
        seen.append(
            SeenThing(
                colour=min(COLOURS, key=lambda name: float(np.square(tint - COLOURS[name]).sum())),
                shape="square" if filled > 0.89 else "circle" if filled > 0.67 else "triangle",
                x=float(columns.mean()) + 0.5,
                y=float(rows.mean()) + 0.5,
            )
        )
    return ground, seen


def check_scene(picture: np.ndarray, caption: str) -> dict[str, float]:
    """How much of `caption` the picture shows, each 0..1: ground, count, place, colour, shape, all.

    A thing counts only where it belongs: within 7 pixels of its place. `colour` and `shape` are shares of the things.
    """
    asked = parse_caption(caption)
    ground, seen = read_scene(picture)
    places = asked.places()
    found = colour = shape = 0
    for thing, x, y in places:
        near = min(seen, key=lambda s: math.hypot(s.x - x, s.y - y), default=None)
        if near is not None and math.hypot(near.x - x, near.y - y) < 7:
            found += 1
            colour += near.colour == thing.colour
            shape += near.shape == thing.shape
    hits = {
        "ground": float(ground == asked.ground),
        "count": float(len(seen) == len(places)),
        "place": found / len(places),
        "colour": colour / len(places),
        "shape": shape / len(places),
    }
    return {**hits, "all": float(all(hit == 1.0 for hit in hits.values()))}


def check_scenes(pictures: Sequence[np.ndarray], captions: Sequence[str]) -> list[dict[str, float]]:
    """`check_scene` of each picture."""
    return [check_scene(np.asarray(p), c) for p, c in zip(pictures, captions, strict=True)]
