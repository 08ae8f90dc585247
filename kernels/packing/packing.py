"""Where the valid tokens of a padded batch are: layers that take tokens one by one then do no work on padding.

Shapes: B batch, T tokens, R valid tokens of the whole batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Packing:
    """Made once for a batch by `of`, used by every layer.

    >>> packing = Packing.of(torch.tensor([[True, True, False], [True, False, False]]))
    >>> packing.pack(torch.tensor([[1, 2, 0], [3, 0, 0]]))
    tensor([1, 2, 3])
    """

    valid: Tensor
    """bool (B, T)."""
    index_R: Tensor
    """int64: place of every valid token in the flattened batch."""

    @staticmethod
    def of(valid: Tensor) -> Packing:
        """From True (or 1) where a token is valid, (B, T). Raises: ConfigError: another shape or type."""
        if valid.ndim != 2 or valid.is_floating_point():
            raise ConfigError(f"packing takes a bool mask (batch, tokens), not {valid.dtype} {tuple(valid.shape)}")
        valid = valid.bool()
        return Packing(valid=valid, index_R=valid.flatten().nonzero()[:, 0])

    def lengths(self) -> Tensor:
        """int64 (B): valid tokens of each row."""
        return self.valid.sum(1)

    def pack(self, x: Tensor) -> Tensor:
        """(B, T, ...) -> (R, ...)."""
        if x.shape[:2] != self.valid.shape:
            raise ConfigError(f"this packing is for batches {tuple(self.valid.shape)}, not {tuple(x.shape[:2])}")
        return x.flatten(0, 1).index_select(0, self.index_R)

    def unpack(self, rows: Tensor) -> Tensor:
        """(R, ...) -> (B, T, ...), 0 at padding."""
        if rows.ndim < 1 or len(rows) != len(self.index_R):
            raise ConfigError(f"this packing has {len(self.index_R)} valid tokens, not {tuple(rows.shape)[:1]}")
        out = rows.new_zeros(self.valid.numel(), *rows.shape[1:])
        return torch.index_copy(out, 0, self.index_R, rows).unflatten(0, tuple(self.valid.shape))
