"""What our Triton kernels have in common, whatever they compute: where they run and how precisely they multiply."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from .dispatch import Backend, Unfit, deferred, not_installed

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
BLACKWELL, MOST_REGISTERS = 100, 255
"""Of a thread, from this compute capability on. Asked nothing, the assembler for Blackwell spills some to fit one
program more on a multiprocessor, inside a kernel's loop; for older cards it does not."""


def triton_backend(module: str, *, refuses: str, run: Callable[..., Any]) -> Backend:
    """The backend that Triton kernels are.

    Args:
        module: full name of the one that has the kernels, and imports Triton.
        refuses: the function of `module` that says what the kernels cannot take.
        run: what runs them.
    """

    def refuses_first(x: Tensor, *rest: Any) -> str | None:
        # The device first, without importing Triton.
        if x.device.type != "cuda" and not (x.device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"):
            return f"it runs on CUDA devices, not on {x.device.type}"
        return deferred(module, refuses)(x, *rest)

    return Backend(
        name="triton",
        run=run,
        missing=not_installed("triton", "pip install 'outpace[triton]' (Linux)"),
        refuses=refuses_first,
        hesitates=lambda x, *_: None if x.device.type == "cuda" else "its interpreter is for tests",
    )


def refuses_type(x: Tensor) -> str | None:
    """Why a kernel cannot take numbers of this type, or None."""
    return None if x.dtype in DTYPES else f"{x.dtype}: has float32, float16, bfloat16"


def refuses_device(x: Tensor, *, interpreted: bool) -> str | None:
    """Why a kernel cannot run where `x` is, or None.

    Args:
        interpreted: whether Triton's interpreter was on when the kernel was made.
    """
    if interpreted and x.device.type != "cpu":
        return "TRITON_INTERPRET is set: the kernels would run on the CPU"
    if interpreted:
        # github.com/triton-lang/triton/issues/11584: `dot` multiplies the bits of bfloat16 as if they were integers.
        return "bfloat16 under Triton's interpreter, which multiplies it wrongly" if x.dtype == torch.bfloat16 else None
    if x.device.type == "cpu":
        return "TRITON_INTERPRET was set after this module was imported"
    if x.dtype == torch.bfloat16 and torch.cuda.get_device_capability(x.device) < (8, 0):
        return "bfloat16 needs a card of compute capability 8.0"
    return None


def precision(x: Tensor, *, interpreted: bool) -> str:
    """How `tl.dot` multiplies numbers of x's type."""
    if x.dtype != torch.float32 or interpreted or torch.version.hip:
        return "ieee"
    if torch.cuda.get_device_capability(x.device) < (8, 0):
        return "ieee"
    # As torch's own products: TF32 only where it was allowed. Three of them make up float32, on the tensor cores.
    return "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "tf32x3"


def capability(device: torch.device, *, interpreted: bool) -> int:
    """Compute capability of a card, such as 90; 0 for AMD and under the interpreter."""
    if interpreted or torch.version.hip or device.type != "cuda":
        return 0
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def unspilled(capability: int) -> dict[str, int]:
    """What a launch asks for where the assembler would rather spill registers than have fewer programs."""
    return {"maxnreg": MOST_REGISTERS} if capability >= BLACKWELL else {}


@contextmanager
def within_the_card() -> Iterator[None]:
    """Around a launch. Raises: Unfit where the compiled kernel needs more of a multiprocessor than the card has.

    Plans of launches are held to what the compiler makes of them for cards that are known; others may come.
    """
    try:
        yield
    except Exception as error:
        if type(error).__name__ != "OutOfResources":  # told by its name: only kernels import Triton
            raise
        needs: Any = error
        raise Unfit(
            f"compiled for this card it needs {needs.required} of {needs.name}, which has {needs.limit}"
        ) from error
