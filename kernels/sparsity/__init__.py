"""Keeping the few largest of many numbers without sorting them."""

from .top_k import StatisticalSoftmax, statistical_threshold, statistical_top_k

__all__ = ["StatisticalSoftmax", "statistical_threshold", "statistical_top_k"]
