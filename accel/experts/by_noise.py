"""A feed-forward layer of which every noise level runs the part that matters most to it, as one dense layer.

What a token needs differs from one to the next, and sorting tokens costs more than small layers save. What a noise
level needs is known when a step begins: its hidden units are gathered once and run as a narrower dense layer.
"""

from __future__ import annotations

import inspect
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...kernels.feed_forward import gated_unit
from ..families import find_family
from .dense import Dense
from .fused import linear_of, parameter_of
from .integers import IntegerLinear
from .layout import Layout
from .settings import Experts


class NoiseLevels:
    """At which noise level each sample of the call under way is; the layers of one transformer share it.

    Args:
        borders: timesteps that part the levels, as the transformer is told them, ascending; a border belongs to the
            level above it. Without any there is one level.
    """

    def __init__(self, borders: Sequence[float]) -> None:
        self.borders = tuple(borders)
        self.levels: tuple[int, ...] | None = None
        """Of the samples; one where all are alike. None: nothing was called yet."""

    def note(self, transformer: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Read the timesteps of a call; a hook that runs before `transformer`."""
        named = {**dict(zip(inspect.signature(transformer.forward).parameters, args, strict=False)), **kwargs}
        times = timesteps_of(named.get(find_family(transformer).time)) if self.borders else None
        found = (0,) if times is None else tuple(bisect_right(self.borders, time) for time in times)
        self.levels = found[:1] if len(set(found)) == 1 else found


def timesteps_of(value: Any) -> list[float] | None:
    """The timestep of every sample of a call, a mean where tokens or frames have their own; None where none has values.

    Reading them waits for the device, once a call.

    Args:
        value: what the call was told: a number, a tensor with the samples in front, or None.
    """
    if isinstance(value, (int, float)):
        return [float(value)]
    if not isinstance(value, Tensor) or value.is_meta or not value.numel():
        return None
    return value.detach().float().reshape(len(value) if value.ndim else 1, -1).mean(1).tolist()


class Change(nn.Module):
    """What a noise level adds to the matrices of a layer's units; nothing before it is trained.

    Args:
        dense: the layer whose units they are.
        units: how many, the first of their order.
    """

    def __init__(self, dense: Dense, units: int) -> None:
        super().__init__()

        def nothing(like: Tensor) -> nn.Linear:
            return linear_of(torch.zeros_like(like).requires_grad_(like.requires_grad))

        self.up = nothing(dense.up_HD[:units])
        self.gate = None if dense.gate_HD is None else nothing(dense.gate_HD[:units])
        self.down = nothing(dense.down_OH[:, :units])


class NoiseFeedForward(nn.Module):
    """A dense feed-forward layer of which every noise level runs its own share of the hidden units.

    Or, where the layout says so (4W), all run the same share, and each adds a trained change of its own to the
    matrices: no level has to learn what all need from its own samples alone.

    `active` may be changed at any time as in `ExpertFeedForward`: 0 leaves the shared units alone, "all" is the dense
    layer. Samples of a batch at several levels are computed level by level. A call that cannot be taken apart so
    (tokens of several samples in one row) runs every unit.

    Source: importance by Taylor over timesteps as in Dense2MoE (Zheng et al., ICCV 2025, arXiv:2510.09094).

    Differs from the paper: experts are chosen by the noise level instead of the token, so nothing is sorted, and there
    is no router. Weights that differ with the noise level alone are as in eDiff-I (Balaji et al., 2022,
    arXiv:2211.01324), there of whole models.

    Args:
        dense: the layer; its weights are copied.
        order_LH: for every level its hidden units, most important first; the shared ones lead each of them.
        settings: the layout.
        noise: knows the level of the call under way.
    """

    order: Tensor
    """(L, H)."""

    def __init__(self, dense: Dense, order_LH: Tensor, settings: Experts, noise: NoiseLevels) -> None:
        super().__init__()
        self.layout = Layout.parse(settings.layout)
        self.active: int | Literal["all"] = self.layout.active
        self.activation, self.noise = dense.activation, noise
        self.up = linear_of(dense.up_HD, dense.up_bias_H)
        self.gate = None if dense.gate_HD is None else linear_of(dense.gate_HD, dense.gate_bias_H)
        self.down = linear_of(dense.down_OH)
        self.bias = None if dense.bias_O is None else parameter_of(dense.bias_O)
        self.register_buffer("order", order_LH.to(dense.up_HD.device))
        self.changes = nn.ModuleList()
        if self.layout.weights:
            self.changes.extend(Change(dense, self.kept) for _ in range(self.layout.levels))
        self._gathered: tuple[Any, tuple[Any, ...]] | None = None

    @property
    def kept(self) -> int:
        """Hidden units that a sample goes through."""
        hidden = self.order.shape[1]
        shared, each = self.layout.widths(hidden)
        return hidden if self.active == "all" else shared + self.active * each

    def forward(self, x: Tensor) -> Tensor:
        levels = self.noise.levels
        dense = self.active == "all" or (self.kept == self.order.shape[1] and not self.changes)
        if levels is None or dense:
            return self._run(x, self._weights(x, None))
        if len(levels) == 1:
            return self._run(x, self._weights(x, levels[0]))
        each, left = divmod(len(x), len(levels))
        if left or x.ndim < 3:
            return self._run(x, self._weights(x, None))
        rows = [[r for r in range(len(x)) if levels[r // each] == level] for level in sorted(set(levels))]
        parts = [
            self._run(x[torch.tensor(some, device=x.device)], self._weights(x, level))
            for level, some in zip(sorted(set(levels)), rows, strict=True)
        ]
        back = torch.tensor(list(chain.from_iterable(rows)), device=x.device).argsort()
        return torch.cat(parts)[back]

    def _run(self, x: Tensor, weights: tuple[Any, ...]) -> Tensor:
        up, up_bias, gate, gate_bias, down = weights
        value = functional.linear(x, up, up_bias)
        gated = None if gate is None else functional.linear(x, gate, gate_bias)
        return functional.linear(gated_unit(value, gated, self.activation), down, self.bias)

    def _weights(self, x: Tensor, level: int | None) -> tuple[Any, ...]:
        """Matrices and biases of a level's units, or of all; gathered anew only when level or weights change."""
        change = cast(Change, self.changes[level]) if level is not None and self.changes else None
        layers = [part for one in (self, change) if one is not None for part in (one.up, one.gate, one.down)]
        layers = [part for part in layers if part is not None]
        held = [part for layer in layers for part in (_source(layer), layer.bias) if part is not None]
        fixed = level is not None and not (torch.is_grad_enabled() or any(part.is_inference() for part in held))
        told = (level, self.kept, x.dtype, *((id(p), p.data_ptr(), p._version) for p in held)) if fixed else None
        if self._gathered is not None and self._gathered[0] == told:
            return self._gathered[1]
        up, down = _matrix(self.up, x.dtype), _matrix(self.down, x.dtype)
        gate = None if self.gate is None else _matrix(self.gate, x.dtype)
        up_bias, gate_bias = self.up.bias, None if self.gate is None else self.gate.bias
        if level is None:
            return up, up_bias, gate, gate_bias, down
        units = self.order[level, : self.kept]

        def rows(part: Tensor | None) -> Tensor | None:
            return None if part is None else part.index_select(0, units)

        made_up, made_gate, made_down = rows(up), rows(gate), down.index_select(1, units)
        if change is not None:
            made_up = _plus(cast(Tensor, made_up), _matrix(change.up, x.dtype), 0)
            if made_gate is not None and change.gate is not None:
                made_gate = _plus(made_gate, _matrix(change.gate, x.dtype), 0)
            made_down = _plus(made_down, _matrix(change.down, x.dtype), 1)
        made = (made_up, rows(up_bias), made_gate, rows(gate_bias), made_down)
        self._gathered = None if told is None else (told, made)
        return made

    def extra_repr(self) -> str:
        return f"{self.layout}, active={self.active}"


def _plus(units: Tensor, change: Tensor, axis: int) -> Tensor:
    """Matrices of some units with the change of those that have one, the first along `axis`."""
    both = min(units.shape[axis], change.shape[axis])
    changed = units.narrow(axis, 0, both) + change.narrow(axis, 0, both)
    rest = units.shape[axis] - both
    return torch.cat([changed, units.narrow(axis, both, rest)], axis) if rest else changed


def _source(layer: nn.Module) -> Tensor:
    return layer.codes if isinstance(layer, IntegerLinear) else cast(Tensor, layer.weight)


def _matrix(layer: nn.Module, dtype: torch.dtype) -> Tensor:
    return layer.held(dtype).dequantised() if isinstance(layer, IntegerLinear) else cast(Tensor, layer.weight)


def find_noise_experts(transformer: nn.Module) -> dict[str, NoiseFeedForward]:
    """The layers of a transformer whose units are chosen by the noise level, by path, in execution order."""
    return {path: module for path, module in transformer.named_modules() if isinstance(module, NoiseFeedForward)}
