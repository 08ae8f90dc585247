"""Bricks of plain stacks: leaving groups of blocks out by noise level, and finding which."""
