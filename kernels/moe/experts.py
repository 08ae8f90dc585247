"""The weights of a layer's routed experts, and what they are checked for once at the door.

Shapes: E experts, N tokens, K experts a token, D features in, H hidden units of an expert, O features out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import ConfigError, UnknownNameError
from ...registry import suggestion
from ..feed_forward import ACTIVATIONS, gated_unit


class Network(NamedTuple):
    """The weights of one expert; see `Experts`."""

    up_DH: Tensor
    down_HO: Tensor
    gate_DH: Tensor | None
    up_bias_H: Tensor | None
    gate_bias_H: Tensor | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Experts:
    """E feed-forward networks of one shape: a(x up + b) down, or, with a gate, (a(x gate + g) * (x up + b)) down.

    Matrices are (in, out), the other way round than in `nn.Linear`: so that some dozen rows an expert are multiplied
    by them up to a quarter faster on a CPU. There is no bias of the output: in a layer that was split into experts it
    is added once, by the shared expert.
    """

    activation: str
    """a: a name in `outpace.kernels.feed_forward.ACTIVATIONS`."""
    up_EDH: Tensor
    """Into the hidden units."""
    down_EHO: Tensor
    """Out of them."""
    gate_EDH: Tensor | None = None
    """For gated networks (SwiGLU, GEGLU): into what the activation is applied to."""
    up_bias_EH: Tensor | None = None
    """b, or None for 0."""
    gate_bias_EH: Tensor | None = None
    """g, or None for 0."""

    @property
    def count(self) -> int:
        """How many there are."""
        return self.up_EDH.shape[0]

    def weights(self) -> dict[str, Tensor]:
        """The tensors that are not None, by field name."""
        named = {
            "up_EDH": self.up_EDH,
            "down_EHO": self.down_EHO,
            "gate_EDH": self.gate_EDH,
            "up_bias_EH": self.up_bias_EH,
            "gate_bias_EH": self.gate_bias_EH,
        }
        return {name: weight for name, weight in named.items() if weight is not None}

    def each(self) -> list[Network]:
        """Them one by one: views."""
        parts = (self.up_EDH, self.down_EHO, self.gate_EDH, self.up_bias_EH, self.gate_bias_EH)
        apart = ([None] * self.count if part is None else part.unbind() for part in parts)
        return [Network(*one) for one in zip(*apart, strict=True)]

    def activate(self, up: Tensor, gate: Tensor | None) -> Tensor:
        """Hidden units from what the matrices into them gave."""
        return gated_unit(up, gate, self.activation)

    def hidden(self, x: Tensor, one: Network) -> Tensor:
        """Hidden units of one expert for tokens x (..., D)."""
        gate = None if one.gate_DH is None else F.linear(x, one.gate_DH.mT, one.gate_bias_H)
        return self.activate(F.linear(x, one.up_DH.mT, one.up_bias_H), gate)

    def to(self, dtype: torch.dtype) -> Experts:
        """The same with all weights of this type."""
        return replace(self, **{name: weight.to(dtype) for name, weight in self.weights().items()})


def check_experts(x: Tensor, experts: Experts) -> None:
    """Raises: ConfigError, UnknownNameError: the weights do not fit together or to x (..., D)."""
    if experts.activation not in ACTIVATIONS:
        known = suggestion(experts.activation, list(ACTIVATIONS))
        raise UnknownNameError(f"experts have no activation '{experts.activation}'{known}")
    up, down = experts.up_EDH, experts.down_EHO
    if up.ndim != 3 or down.ndim != 3:
        raise ConfigError(
            f"experts take matrices of shape (experts, in, out), not {tuple(up.shape)} into the hidden units and "
            f"{tuple(down.shape)} out of them"
        )
    if experts.gate_bias_EH is not None and experts.gate_EDH is None:
        raise ConfigError("experts have a bias of the gate but no gate; give gate_EDH too, or neither")
    count, width, hidden = up.shape
    expected = {
        "down_EHO": (count, hidden, down.shape[2]),
        "gate_EDH": (count, width, hidden),
        "up_bias_EH": (count, hidden),
        "gate_bias_EH": (count, hidden),
    }
    for name, weight in experts.weights().items():
        shape = expected.get(name, tuple(up.shape))
        if tuple(weight.shape) != shape:
            raise ConfigError(f"{name} must have shape {shape} beside up_EDH {tuple(up.shape)}, not {weight.shape}")
        if weight.device != x.device:
            raise ConfigError(f"tokens are on {x.device} and {name} on {weight.device}; move them to one device")
        if weight.dtype != x.dtype or not x.is_floating_point():
            raise ConfigError(
                f"tokens and experts must be of one floating-point type, not {x.dtype} and {weight.dtype} ({name}); "
                "convert one, or run under torch.autocast"
            )
    if x.ndim == 0 or x.shape[-1] != width:
        raise ConfigError(f"experts for {width} features cannot take tokens of shape {tuple(x.shape)}")


def check_choice(x: Tensor, expert_index: Tensor, gates: Tensor, experts: int) -> None:
    """Raises: ConfigError where expert_index and gates (..., K) do not say which experts each token of x goes through.

    Whether every index exists is looked up on a CPU only: a GPU would have to be waited for.
    """
    if expert_index.shape != gates.shape or expert_index.shape[:-1] != x.shape[:-1] or expert_index.ndim != x.ndim:
        raise ConfigError(
            f"chosen experts and their gates must be of shape {(*x.shape[:-1], 'K')}, not {tuple(expert_index.shape)} "
            f"and {tuple(gates.shape)}"
        )
    if expert_index.dtype not in (torch.int32, torch.int64) or not gates.is_floating_point():
        raise ConfigError(
            f"chosen experts must be int64 or int32 and gates floating-point, not {expert_index.dtype}, {gates.dtype}"
        )
    if expert_index.device != x.device or gates.device != x.device:
        raise ConfigError(
            f"tokens are on {x.device}, chosen experts on {expert_index.device} and gates on {gates.device}; move them "
            "to one device"
        )
    if x.device.type == "cpu" and expert_index.numel():
        least, most = (int(end) for end in expert_index.aminmax())
        if least < 0 or most >= experts:
            raise ConfigError(f"chosen experts must be 0 to {experts - 1}, not {least} to {most}")
