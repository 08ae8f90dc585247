"""Feed-forward networks of a transformer, gated or plain."""

from .glu import glu

__all__ = ["glu"]
