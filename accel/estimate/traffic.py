"""Counts what a device would have to do: bytes its kernels read and write, numbers that are waited for, memory held.

Counted as if every operation were one kernel that reads its inputs and writes its results once, which is what plain
torch does. Nothing here needs a GPU: shapes decide.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

MOVES_NOTHING = {
    "view", "_unsafe_view", "expand", "permute", "transpose", "t", "select", "slice", "split", "split_with_sizes",
    "unsqueeze", "squeeze", "as_strided", "detach", "alias", "unbind", "chunk", "narrow", "_reshape_alias", "diagonal",
    "unfold", "view_as_real", "view_as_complex", "empty", "empty_like", "empty_strided", "new_empty", "lift_fresh",
    "real", "imag", "_local_scalar_dense", "new_empty_strided",
}  # fmt: skip
"""Operations that look at the same memory another way, or make memory that is not written."""
WAITS = {"_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "unique", "_unique2"}
"""Operations that the processor waits for: their result, or its size, is a number it needs to go on."""


class Traffic(TorchDispatchMode):
    """Of everything that runs inside the block.

    Args:
        counted: whether what runs now belongs to what is counted; everything does where None.

    >>> with Traffic() as seen:
    ...     total = (torch.ones(1000) + 1).sum().item()
    >>> seen.bytes, seen.kernels, seen.waits
    (16004, 3, ['_local_scalar_dense'])
    """

    def __init__(self, counted: Callable[[], bool] | None = None) -> None:
        super().__init__()
        self.counted = counted
        self.bytes = 0
        """Read and written."""
        self.kernels = 0
        self.waits: list[str] = []
        """Operations whose result the processor waited for."""
        self.uploads = 0
        """Tensors that were made of Python's numbers: copies to the device."""
        self._transfers = _Transfers(self)
        self.by_operation: Counter[str] = Counter()
        """Bytes."""
        self._tensors: Counter[int] = Counter()
        self._known: set[int] = set()
        self._held: Counter[torch.dtype] = Counter()
        self._peak: Counter[torch.dtype] = Counter()

    def peak(self, dtype: torch.dtype) -> int:
        """Most bytes of this type that were held at once, of what was made inside the block."""
        return self._peak[dtype]

    def __enter__(self) -> Traffic:
        super().__enter__()
        self._transfers.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._transfers.__exit__(*error)
        super().__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        made = [t for t in tree_leaves(out) if isinstance(t, torch.Tensor)]
        theirs = {_place(t) for t in given}
        for tensor in made:
            if _place(tensor) not in theirs or _place(tensor) in self._tensors:
                self._hold(tensor)
        if self.counted is not None and not self.counted():
            return out
        crosses = name in ("_to_copy", "copy_") and _crosses([*given, *made])
        if (name in WAITS or crosses) and not self._transfers.counting:
            self.waits.append(name)
        self.uploads += name == "lift_fresh"
        if name not in MOVES_NOTHING:
            touched = {(_place(t), t.storage_offset(), t.shape): t for t in given}
            moved = sum(map(_bytes, touched.values())) + sum(map(_bytes, made))
            self.bytes += moved
            self.kernels += 1
            self.by_operation[name] += moved
        return out

    def _hold(self, tensor: torch.Tensor) -> None:
        if id(tensor) in self._known:
            return
        place, dtype, size, name = _place(tensor), tensor.dtype, tensor.untyped_storage().nbytes(), id(tensor)
        self._known.add(name)
        self._tensors[place] += 1
        if self._tensors[place] == 1:
            self._held[dtype] += size
            self._peak[dtype] = max(self._peak[dtype], self._held[dtype])

        def let_go() -> None:
            self._known.discard(name)
            self._tensors[place] -= 1
            if not self._tensors[place]:
                del self._tensors[place]
                self._held[dtype] -= size

        weakref.finalize(tensor, let_go)


class _Transfers(TorchFunctionMode):
    """Counts the transfers that no operation of a CPU tells of: they are the same calls for every device."""

    def __init__(self, traffic: Traffic) -> None:
        super().__init__()
        self.traffic, self.counting = traffic, False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name not in ("tolist", "cpu", "numpy") or self.counting:
            return func(*args, **(kwargs or {}))
        if self.traffic.counted is None or self.traffic.counted():
            self.traffic.waits.append(name)
        self.counting = True
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self.counting = False


def _place(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _crosses(tensors: list[torch.Tensor]) -> bool:
    """Whether a copy goes from a device to the processor, or the other way."""
    return len({t.device.type for t in tensors}) > 1


def _bytes(tensor: torch.Tensor) -> int:
    """Of the numbers that are there: once each where a tensor is expanded."""
    count = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        count *= size if stride or size == 0 else 1
    return count * tensor.element_size()
