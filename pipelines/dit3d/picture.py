"""A picture of a point cloud in which a point's colour tells its place, so that the places can be read back.

Red, green and blue are x, y and z. Nearer points hide further ones; every point is a disc with a dark rim.
"""

from __future__ import annotations

import math

import numpy as np

REACH = 1.5
"""Coordinates from -REACH to REACH are told apart; what lies further out is drawn at the end of the scale."""
PAPER, RIM = 1.0, 0.0
"""Of all three colours; no point has these, since theirs lie within DARK and LIGHT."""
DARK, LIGHT = 0.15, 0.9
TURN, TILT = math.radians(35), math.radians(25)
"""Where it is looked at from."""


def picture(points_N3: np.ndarray, side: int = 96) -> np.ndarray:
    """A cloud as a square picture, (Y, X, 3) in 0..1."""
    points = np.asarray(points_N3, dtype=np.float64)
    across, up, towards = _axes()
    radius = 0.018 * side
    scale = side / (2 * 1.25)
    columns, rows = side / 2 + points @ across * scale, side / 2 - points @ up * scale
    made = np.full((side, side, 3), PAPER)
    middles = np.arange(side) + 0.5
    colours = DARK + (LIGHT - DARK) * (points.clip(-REACH, REACH) / REACH + 1) / 2
    reach = radius + 0.6
    for index in np.argsort(points @ towards):
        near = np.ix_(abs(middles - rows[index]) < reach, abs(middles - columns[index]) < reach)
        distance = np.hypot((middles - rows[index])[near[0]], (middles - columns[index])[near[1]])[..., None]
        disc = np.where(distance < radius, colours[index], RIM)
        made[near] = np.where(distance < reach, disc, made[near])
    return made.astype(np.float32)


def read_picture(media_YX3: np.ndarray) -> np.ndarray:
    """The places of the points that a picture shows, one a visible pixel, (N, 3)."""
    pixels = np.asarray(media_YX3, dtype=np.float64).reshape(-1, 3)
    seen = pixels[~(pixels == PAPER).all(1) & ~(pixels == RIM).all(1)]
    return ((seen - DARK) / (LIGHT - DARK) * 2 - 1) * REACH


def _axes() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors across the picture, up, and towards the eye; z is up in the world."""
    towards = np.array([math.cos(TILT) * math.cos(TURN), math.cos(TILT) * math.sin(TURN), math.sin(TILT)])
    across = np.array([-math.sin(TURN), math.cos(TURN), 0.0])
    return across, np.cross(towards, across), towards
