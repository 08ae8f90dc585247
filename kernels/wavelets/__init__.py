"""Wavelet transforms of pictures: there, and exactly back."""

from .dual_tree import dual_tree, inverse_dual_tree
from .haar import haar, inverse_haar

__all__ = ["dual_tree", "haar", "inverse_dual_tree", "inverse_haar"]
