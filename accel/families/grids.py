"""How packed latents tell the grid of their tokens: what the arguments of a call say of frames, height and width.

Each reads one kind of argument and is named in `Family.grid`; None where the call does not tell. Whether the grid
accounts for the tokens is for the caller to see.
"""

from __future__ import annotations

from collections.abc import Sequence

from .family import Named


def by_positions(call: Named, name: str = "img_ids") -> Sequence[int] | None:
    """From each token's (frame, row, column, ...): shape (tokens, 3 or more) or (batch, tokens, 3 or more)."""
    import torch

    ids = call.get(name)
    if not isinstance(ids, torch.Tensor) or ids.shape[-1] < 3:
        return None
    axes = ids.reshape(-1, ids.shape[-1])[:, :3].long()  # a fourth axis tells text tokens apart
    return (axes.amax(0) - axes.amin(0) + 1).tolist()


def by_shapes(call: Named, name: str = "img_shapes") -> Sequence[int] | None:
    """From a list with (frames, height, width) of every sample, bare or as a list of its only picture."""
    shapes = call.get(name)
    if not isinstance(shapes, (list, tuple)) or not shapes:
        return None
    first = shapes[0]
    if isinstance(first, (list, tuple)) and len(first) == 1:
        first = first[0]
    # Several pictures in one sample, as with references beside the one that is made, are no single grid.
    whole = isinstance(first, (list, tuple)) and len(first) == 3 and all(isinstance(side, int) for side in first)
    return list(first) if whole else None


def by_sizes(call: Named, names: Sequence[str] = ("num_frames", "height", "width")) -> Sequence[int] | None:
    """From three numbers."""
    sizes = [call.get(name) for name in names]
    return [size for size in sizes if isinstance(size, int)] if all(isinstance(s, int) for s in sizes) else None
