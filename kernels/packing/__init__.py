"""Padded batches without their padding: valid tokens behind each other."""

from .packing import Packing

__all__ = ["Packing"]
