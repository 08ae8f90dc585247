"""Feed-forward networks of a transformer, gated or plain."""

from .glu import ACTIVATIONS, gated_unit, glu

__all__ = ["ACTIVATIONS", "gated_unit", "glu"]
