"""The tiny transformers that the tests of `accel` run on: those of `outpace.accel.specimens`, in three heaps."""

from __future__ import annotations

from outpace.accel.specimens import SPECIMENS
from outpace.accel.specimens import Specimen as TinyModel
from outpace.accel.specimens.own import OWN as OWN_MODELS
from outpace.accel.specimens.pictures import PICTURES, flux, plain
from outpace.accel.specimens.specimen import WIDTH, rectangle
from outpace.accel.specimens.videos import VIDEOS

TINY_MODELS: dict[str, TinyModel] = {**PICTURES, **VIDEOS}
"""Classes that every test of methods runs on."""

MORE_MODELS = {cls: tiny for cls, tiny in SPECIMENS.items() if cls not in TINY_MODELS and cls not in OWN_MODELS}
"""Classes that are held to the contract of every family, in short by default and in full among the slow tests."""

__all__ = ["MORE_MODELS", "OWN_MODELS", "SPECIMENS", "TINY_MODELS", "WIDTH", "TinyModel", "flux", "plain", "rectangle"]
