"""MossFormer's and MossFormer2's weights, as ClearerVoice has them."""

from __future__ import annotations

from ..mossformer import Mossformer, by_our_names
from .taking import Weights, layout


@layout(Mossformer)
def mossformer(weights: Weights, model: Mossformer) -> Weights:
    """Names alone; a block and what follows it lie in turn here."""
    return by_our_names(weights)
