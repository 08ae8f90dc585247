"""Causal softmax attention with a cache, and what papers add to it: a gate on its output, another normaliser, a window.

Shapes: B batch, T tokens, D width, H query heads, G key heads, W width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ...errors import ConfigError
from ...kernels.attention import ClippedSoftmax, attend
from ..companion import check_divides, check_sizes
from .rotary import rotate

GATES = ("none", "channel", "head")


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionConfig:
    """What a layer of softmax attention is made of."""

    heads: int
    """H."""
    key_heads: int | None = None
    """G, a divisor of H; H where None."""
    head_width: int | None = None
    """W; D / H where None."""
    gate: str = "none"
    """On the output before the last matrix: "none", one a "channel", or one a "head"."""
    clip: float = 0.0
    """alpha of a clipped softmax, whose gamma is -alpha / keys; 0 is a softmax."""
    window: int | None = None
    """Keys a query sees, its own the last; all where None."""
    query_key_norm: bool = False
    """Whether queries and keys are normalised (RMS) head by head."""
    rotary_base: float = 10_000.0
    """Of the rotary position embedding."""

    def __post_init__(self) -> None:
        check_sizes(self)
        check_divides("query heads over key heads", self.heads, self.key_heads or self.heads)
        if self.gate not in GATES:
            raise ConfigError(f"gate of attention must be one of {', '.join(GATES)}, not '{self.gate}'")


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionState:
    """Keys and values of the tokens read so far; with a window, of the last ones only."""

    position: int
    """Tokens read."""
    keys: Tensor
    """(B, G, M, W)."""
    values: Tensor
    """(B, G, M, W)."""


class SoftmaxAttention(nn.Module):
    """Self-attention of a language model, for whole sequences and for decoding."""

    def __init__(self, width: int, config: AttentionConfig) -> None:
        super().__init__()
        if config.head_width is None:
            check_divides("width over heads", width, config.heads)
            config = replace(config, head_width=width // config.heads)
        self.config, self.head_width = config, config.head_width or 0
        groups, inner = config.key_heads or config.heads, config.heads * self.head_width
        self.query = nn.Linear(width, inner, bias=False)
        self.key = nn.Linear(width, groups * self.head_width, bias=False)
        self.value = nn.Linear(width, groups * self.head_width, bias=False)
        self.out = nn.Linear(inner, width, bias=False)
        gates = {"none": 0, "channel": inner, "head": config.heads}[config.gate]
        self.gate = nn.Linear(width, gates, bias=False) if gates else None
        self.query_norm = nn.RMSNorm(self.head_width, eps=1e-6) if config.query_key_norm else nn.Identity()
        self.key_norm = nn.RMSNorm(self.head_width, eps=1e-6) if config.query_key_norm else nn.Identity()

    def forward(self, x_BTD: Tensor, state: AttentionState | None = None) -> tuple[Tensor, AttentionState]:
        """The output for some more tokens, and the state after them."""
        start, config = 0 if state is None else state.position, self.config
        q, k, v = (
            part(x_BTD).unflatten(-1, (-1, self.head_width)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        q = rotate(self.query_norm(q), start, config.rotary_base)
        k = rotate(self.key_norm(k), start, config.rotary_base)
        if state is not None:
            k, v = torch.cat([state.keys, k], 2), torch.cat([state.values, v], 2)
        clipped = ClippedSoftmax(gamma=-config.clip / k.shape[2]) if config.clip else None
        out = attend(q, k, v, causal=True, window=config.window, normaliser=clipped, gate=self.gate_of(x_BTD))
        kept = k.shape[2] if config.window is None else config.window
        state = AttentionState(position=start + x_BTD.shape[1], keys=k[:, :, -kept:], values=v[:, :, -kept:])
        return self.out(out.transpose(1, 2).flatten(-2)), state

    def gate_of(self, x_BTD: Tensor) -> Tensor | None:
        """Logits of the gate, (B, H, T) or (B, H, T, W)."""
        if self.gate is None:
            return None
        logits = self.gate(x_BTD)
        if self.config.gate == "head":
            return logits.transpose(1, 2)
        return logits.unflatten(-1, (-1, self.head_width)).transpose(1, 2)
