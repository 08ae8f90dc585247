"""LaDiNE: a transformer's early blocks, mapped to guesses that diffusion on labels refines: a diffusers pipeline."""

from __future__ import annotations

from .denoiser import LadineDenoiser
from .encoder import LadineEncoder
from .mapping import LadineMapping
from .pipeline import LadinePipeline, LadinePipelineOutput
from .scheduler import LadineScheduler

__all__ = [
    "LadineDenoiser",
    "LadineEncoder",
    "LadineMapping",
    "LadinePipeline",
    "LadinePipelineOutput",
    "LadineScheduler",
]
