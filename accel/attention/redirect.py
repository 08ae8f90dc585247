"""Reaching the attention inside a diffusers module without touching its processor.

Every attention processor of diffusers, whatever it projects, normalises and rotates before, ends in torch's
`scaled_dot_product_attention` when its backend is the native one. That one call is answered by a handler while the
module runs, in this thread and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

Answer = Callable[..., Tensor]


@dataclass(slots=True)
class Attended:
    """One call of scaled_dot_product_attention: (B, H, N, D) each."""

    query: Tensor
    key: Tensor
    value: Tensor
    attn_mask: Tensor | None = None
    dropout_p: float = 0.0
    is_causal: bool = False
    scale: float | None = None
    enable_gqa: bool = False


class Redirect(TorchFunctionMode):
    """While it is entered, `handler(attended, dense)` answers scaled_dot_product_attention; `dense()` is the original.

    Attention to other tokens than its own, as an image adapter adds, passes through.

    Attributes:
        seen: calls answered.
    """

    def __init__(self, handler: Callable[[Attended, Callable[[], Tensor]], Tensor]) -> None:
        super().__init__()
        self.handler, self.seen = handler, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        attended = Attended(*args, **kwargs)
        if attended.query.shape[-2] != attended.key.shape[-2]:
            return func(*args, **kwargs)
        self.seen += 1
        return self.handler(attended, lambda: func(*args, **kwargs))


@contextmanager
def native_backend(module: nn.Module) -> Iterator[None]:
    """Have an attention module's processor use torch's own attention for a while, whatever backend is set for it."""
    processor = getattr(module, "processor", None)
    if processor is None or not hasattr(processor, "_attention_backend"):
        yield
        return
    from diffusers.models.attention_dispatch import AttentionBackendName

    own = processor.__dict__.get("_attention_backend", processor)  # the processor itself stands for "not its own"
    processor._attention_backend = AttentionBackendName.NATIVE
    try:
        yield
    finally:
        if own is processor:
            del processor._attention_backend
        else:
            processor._attention_backend = own


NEGLIGIBLE = -1e4
"""An additive mask from here down hides a key."""


def hidden_keys(mask: Tensor | None, batch: int, keys: int) -> tuple[Tensor | None, str]:
    """Which keys a mask of self-attention hides: bool (B, M), None where it hides nothing.

    What the tokens that are hidden as keys attend to is not looked at: no other token sees them.

    The second value says why a mask cannot be read so; it is empty where it can.
    """
    if mask is None:
        return None, ""
    if mask.ndim not in (2, 4) or mask.shape[-1] != keys:
        return None, f"a mask of shape {tuple(mask.shape)}"
    if mask.dtype == torch.bool:
        seen = mask
    else:
        seen = mask > NEGLIGIBLE
        if bool((mask.masked_fill(~seen, 0) != 0).any()):
            # What is added to every key of a query alike changes nothing.
            return None, "" if bool((mask == mask[..., :1]).all()) else "its mask adds a bias"
    seen = seen if seen.ndim == 4 else seen[None, None]
    if seen.shape[1] > 1 and not bool((seen == seen[:, :1]).all()):
        return None, "its mask differs between heads"
    seen = seen[:, 0]  # (B, 1 or N, M)
    visible = seen.any(1)
    if seen.shape[1] > 1 and not bool(((seen == visible[:, None]) | ~visible[:, :, None]).all()):
        return None, "its mask differs between queries"
    if bool(visible.all()):
        return None, ""
    return ~visible.expand(batch, keys), ""
