"""Numbers as small integers with a scale, for a whole tensor or for every block of it, and products of them."""

from .linear import quantised_linear
from .numbers import Quantised, quantise

__all__ = ["Quantised", "quantise", "quantised_linear"]
