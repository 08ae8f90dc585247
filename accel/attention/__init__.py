"""Block-sparse attention in a running pipeline: where attention is, what is kept of it, and when that is searched."""

from .engine import AttentionEngine
from .record import AttentionRecord

__all__ = ["AttentionEngine", "AttentionRecord"]
