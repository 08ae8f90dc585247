"""MossFormer's and MossFormer2's weights, as ClearerVoice has them."""

from __future__ import annotations

from ...weights import Weights, layout
from ..mossformer import Mossformer, by_our_names


@layout(Mossformer)
def mossformer(weights: Weights, model: Mossformer) -> Weights:
    """Names alone; a block and what follows it lie in turn here."""
    return by_our_names(weights)
