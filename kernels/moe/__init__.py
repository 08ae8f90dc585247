"""Routed experts of a mixture-of-experts layer: every token through the few feed-forward networks chosen for it."""

from .experts import Experts
from .ffn import EXPERT_FFN, expert_ffn

__all__ = ["EXPERT_FFN", "Experts", "expert_ffn"]
