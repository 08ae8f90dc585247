"""Attention whose memory is a state of fixed size: linear in the length, one step a token when decoding.

Three recurrences: `gated_linear_attention` forgets by a gate and adds, `delta_rule` also takes back what a key held
before, and `scan` is the one of vectors.
"""

from .delta import DELTA_RULE, delta_rule
from .gated import GATED, gated_linear_attention
from .scan import SCAN, scan

__all__ = ["DELTA_RULE", "GATED", "SCAN", "delta_rule", "gated_linear_attention", "scan"]
