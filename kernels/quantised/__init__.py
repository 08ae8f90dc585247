"""Numbers as small integers with a scale, for a whole tensor or for every block of it, products of them,
and GELU, softmax and LayerNorm by tables.
"""

from .linear import quantised_linear
from .numbers import Quantised, quantise
from .tables import table_activation, table_layer_norm, table_softmax

__all__ = ["Quantised", "quantise", "quantised_linear", "table_activation", "table_layer_norm", "table_softmax"]
