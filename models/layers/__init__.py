"""Layers that several papers are built from."""
