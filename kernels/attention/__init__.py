"""Attention: dense with its log-sum-exp, over kept blocks only, and the mass every block gets."""

from ..block_index import BlockIndex
from .dense import DENSE, dense_attention
from .mass import MASS, block_mass
from .sparse import SPARSE, sparse_attention

__all__ = ["DENSE", "MASS", "SPARSE", "BlockIndex", "block_mass", "dense_attention", "sparse_attention"]
