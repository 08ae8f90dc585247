"""Attention: dense with its log-sum-exp, over kept blocks only, the mass every block gets, and what papers vary."""

from ..block_index import BlockIndex
from .alibi import alibi_bias, alibi_slopes
from .attend import ClippedSoftmax, attend
from .dense import DENSE, dense_attention
from .mass import MASS, block_mass
from .searched import searched_attention
from .sparse import SPARSE, sparse_attention

__all__ = [
    "DENSE",
    "MASS",
    "SPARSE",
    "BlockIndex",
    "ClippedSoftmax",
    "alibi_bias",
    "alibi_slopes",
    "attend",
    "block_mass",
    "dense_attention",
    "searched_attention",
    "sparse_attention",
]
