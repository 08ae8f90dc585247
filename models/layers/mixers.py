"""Layers that mix tokens through a state of fixed size: GLA, RetNet, HGRN, HGRN-2, DeltaNet, gated DeltaNet.

Each takes (x, state or None) and gives (y, state): a whole sequence, or some more tokens of one.

Shapes: B batch, T tokens, D width, H heads.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import ConfigError
from ...kernels.convolution import causal_conv
from ...kernels.linear_attention import delta_rule, gated_linear_attention, scan
from ...registry import Registry
from ..companion import check_divides
from .rotary import rotate

State = tuple[Tensor, ...]
MIXERS: Registry[Callable[[int, int], nn.Module]] = Registry("mixer")
"""Name -> (width, heads) -> layer."""


def linear(width: int, out: int) -> nn.Linear:
    """A matrix without a bias."""
    return nn.Linear(width, out, bias=False)


def split(x_BTD: Tensor, heads: int) -> Tensor:
    """(B, T, D) -> (B, H, T, D / H)."""
    return x_BTD.unflatten(-1, (heads, -1)).transpose(1, 2)


def join(x_BHTW: Tensor) -> Tensor:
    """The way back."""
    return x_BHTW.transpose(1, 2).flatten(-2)


class ShortConvolution(nn.Module):
    """A causal depthwise convolution over 4 tokens, then SiLU."""

    def __init__(self, channels: int, width: int = 4) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, width).uniform_(-(width**-0.5), width**-0.5))

    def forward(self, x_BTD: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        out, state = causal_conv(x_BTD, self.weight, state=state, return_state=True)
        return F.silu(out), state


@MIXERS.register("gla")
class GatedLinearAttention(nn.Module):
    """A decay for every channel of the key, from the token.

    Source: Yang et al., 2023, arXiv:2312.06635. Norm and output gate as in flash-linear-attention.
    """

    RANK, TEMPERATURE = 16, 16.0

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        check_divides("half the width of gla over heads", width // 2, heads)
        self.heads = heads
        self.query, self.key, self.value = linear(width, width // 2), linear(width, width // 2), linear(width, width)
        self.decay = nn.Sequential(linear(width, self.RANK), nn.Linear(self.RANK, width // 2))
        self.gate, self.out = linear(width, width), linear(width, width)
        self.norm = nn.RMSNorm(width // heads, eps=1e-5)

    def forward(self, x_BTD: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        q, k, v, decay = (split(part(x_BTD), self.heads) for part in (self.query, self.key, self.value, self.decay))
        log_decay = F.logsigmoid(decay) / self.TEMPERATURE
        out, S = gated_linear_attention(
            q, k, v, log_decay, initial_state=None if state is None else state[0], return_state=True
        )
        return self.out(join(self.norm(out)) * F.silu(self.gate(x_BTD))), (S,)


@MIXERS.register("retnet")
class Retention(nn.Module):
    """A decay fixed for every head, 1 - 2^(-5 - h), with rotary positions; values twice as wide.

    Source: Sun et al., 2023, arXiv:2307.08621.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        check_divides("width of retnet over twice the heads", width, 2 * heads)
        self.heads = heads
        self.query, self.key, self.value = linear(width, width), linear(width, width), linear(width, 2 * width)
        self.gate, self.out = linear(width, 2 * width), linear(2 * width, width)
        self.norm = nn.RMSNorm(2 * width // heads, eps=1e-5)
        log_decay = torch.log1p(-(2.0 ** (-5 - torch.arange(heads, dtype=torch.float64))))
        self.register_buffer("log_decay", log_decay.to(torch.get_default_dtype()), persistent=False)

    def forward(self, x_BTD: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        start = 0 if state is None else int(state[1])
        q, k, v = (split(part(x_BTD), self.heads) for part in (self.query, self.key, self.value))
        out, S = gated_linear_attention(
            rotate(q, start),
            rotate(k, start),
            v,
            self.get_buffer("log_decay"),
            initial_state=None if state is None else state[0],
            return_state=True,
        )
        position = torch.tensor(start + x_BTD.shape[1])
        return self.out(join(self.norm(out)) * F.silu(self.gate(x_BTD))), (S, position)


def at_least(log_gate: Tensor, lowest: Tensor | None) -> Tensor:
    """The logarithm of a gate from 0 to 1 that is moved into (lowest, 1); as it is where there is no lowest."""
    return log_gate if lowest is None else torch.logaddexp(lowest.log(), torch.log1p(-lowest) + log_gate)


@MIXERS.register("hgrn")
class Hgrn(nn.Module):
    """A gated recurrence of vectors.

    Source: Qin et al., 2023, arXiv:2311.04823. The gate is at least `lowest` (D) where that is given.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.value, self.forget, self.gate, self.out = (linear(width, width) for _ in range(4))
        self.norm = nn.RMSNorm(width, eps=1e-5)

    def forward(self, x_BTD: Tensor, state: State | None = None, lowest: Tensor | None = None) -> tuple[Tensor, State]:
        log_decay = at_least(F.logsigmoid(self.forget(x_BTD)), lowest)
        written = F.silu(self.value(x_BTD)) * -torch.expm1(log_decay)
        h = scan(written, log_decay, initial_state=None if state is None else state[0])
        return self.out(self.norm(h) * F.silu(self.gate(x_BTD))), (h[:, -1],)


@MIXERS.register("hgrn2")
class Hgrn2(nn.Module):
    """Gated linear attention whose key is 1 minus its gate.

    Source: Qin et al., 2024, arXiv:2404.07904. The gate is at least `lowest` (D) where that is given.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        check_divides("width of hgrn2 over heads", width, heads)
        self.heads = heads
        self.query, self.forget, self.value, self.out = (linear(width, width) for _ in range(4))
        self.norm = nn.RMSNorm(width, eps=1e-5)

    def forward(self, x_BTD: Tensor, state: State | None = None, lowest: Tensor | None = None) -> tuple[Tensor, State]:
        log_decay = split(at_least(F.logsigmoid(self.forget(x_BTD)), lowest), self.heads)
        q, v = split(F.silu(self.query(x_BTD)), self.heads), split(self.value(x_BTD), self.heads)
        out, S = gated_linear_attention(
            q,
            -torch.expm1(log_decay),
            v,
            log_decay,
            initial_state=None if state is None else state[0],
            return_state=True,
        )
        return self.out(self.norm(join(out))), (S,)


@MIXERS.register("deltanet")
class DeltaNet(nn.Module):
    """What a key held is taken back before it is written anew.

    Source: Yang et al., 2024, arXiv:2406.06484.
    """

    KEYS, VALUES = (1, 1), (1, 1)
    """Widths of all heads together, as fractions of the model's."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        keys, values = (width * share // of for share, of in (self.KEYS, self.VALUES))
        check_divides("width of a delta net's keys over heads", keys, heads)
        self.heads = heads
        self.query, self.key, self.value = linear(width, keys), linear(width, keys), linear(width, values)
        self.convolutions = nn.ModuleList(ShortConvolution(size) for size in (keys, keys, values))
        self.beta, self.out = linear(width, heads), linear(values, width)
        self.norm = nn.RMSNorm(values // heads, eps=1e-5)

    def forward(self, x_BTD: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        parts, seen = [], []
        for i, part in enumerate((self.query, self.key, self.value)):
            mixed, kept = self.convolutions[i](part(x_BTD), None if state is None else state[1 + i])
            parts.append(split(mixed, self.heads))
            seen.append(kept)
        q, k, v = parts
        out, S = delta_rule(
            F.normalize(q, dim=-1),
            F.normalize(k, dim=-1),
            v,
            self.beta(x_BTD).sigmoid().transpose(1, 2),
            self.log_decay(x_BTD),
            initial_state=None if state is None else state[0],
            return_state=True,
        )
        return self.out(self.opened(join(self.norm(out)), x_BTD)), (S, *seen)

    def log_decay(self, x_BTD: Tensor) -> Tensor | None:
        """(B, H, T): how much is forgotten; None for nothing."""
        return None

    def opened(self, y_BTD: Tensor, x_BTD: Tensor) -> Tensor:
        """The output through its gate, where there is one."""
        return y_BTD


@MIXERS.register("gated_deltanet")
class GatedDeltaNet(DeltaNet):
    """DeltaNet that also forgets, a head at a time; keys 3/4 and values 3/2 as wide as the model, and a gated output.

    Source: Yang et al., 2024, arXiv:2412.06464.
    """

    KEYS, VALUES = (3, 4), (3, 2)

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.gate, self.rate = linear(width, width * 3 // 2), linear(width, heads)
        self.log_speed = nn.Parameter(torch.empty(heads).uniform_(1e-3, 16).log())
        step = torch.empty(heads).uniform_(math.log(1e-3), math.log(0.1)).exp()
        self.rate_bias = nn.Parameter(step + torch.log(-torch.expm1(-step)))  # softplus of it is `step`

    def log_decay(self, x_BTD: Tensor) -> Tensor:
        return (-self.log_speed.exp() * F.softplus(self.rate(x_BTD) + self.rate_bias)).transpose(1, 2)

    def opened(self, y_BTD: Tensor, x_BTD: Tensor) -> Tensor:
        return y_BTD * F.silu(self.gate(x_BTD))


def mixer(name: str, width: int, heads: int) -> nn.Module:
    """A fresh layer. Raises: UnknownNameError, ConfigError."""
    if width < 2 or width % 2:
        raise ConfigError(f"mixers take an even width of at least 2, not {width}")
    return MIXERS[name](width, heads)
