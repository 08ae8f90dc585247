"""Tiny transformers of every class that a family covers, by the name of their class."""

from __future__ import annotations

from .more_pictures import MORE_PICTURES
from .more_videos import MORE_VIDEOS
from .own import OWN
from .pictures import PICTURES
from .sounds import SOUNDS
from .specimen import Specimen
from .streams import STREAMS
from .videos import VIDEOS

SPECIMENS: dict[str, Specimen] = {
    **PICTURES,
    **VIDEOS,
    **MORE_PICTURES,
    **MORE_VIDEOS,
    **SOUNDS,
    **STREAMS,
    **OWN,
}
"""Tiny transformers of every class that a family of outpace covers."""

__all__ = ["SPECIMENS", "Specimen"]
