"""Convolution along time that sees the past only, with what it must remember between two calls."""

from .causal import causal_conv

__all__ = ["causal_conv"]
