"""A feed-forward layer of which every noise level runs the part that matters most to it, as one dense layer.

What a token needs differs from one to the next, and sorting tokens costs more than small layers save. What a noise
level needs is known when a step begins: its hidden units are gathered once and run as a narrower dense layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...kernels.feed_forward import gated_unit
from .dense import Dense
from .fused import linear_of, parameter_of
from .integers import IntegerLinear
from .layout import Layout
from .noise_levels import NoiseLevels
from .settings import Experts
from .uncompiled import uncompiled

MOST_BYTES = 32_000_000
"""Of a layer's matrices over all levels that stay laid out. Laying larger ones out anew when the level changes takes
little of a call, and they would take much memory."""


class Change(nn.Module):
    """What a noise level adds to the matrices of a layer's units, and to its output; nothing before it is fitted.

    Args:
        dense: the layer whose units they are.
        units: how many, the first of their order.
    """

    def __init__(self, dense: Dense, units: int) -> None:
        super().__init__()

        def nothing(like: Tensor, bias: Tensor | None = None) -> nn.Linear:
            held = None if bias is None else torch.zeros_like(bias).requires_grad_(like.requires_grad)
            return linear_of(torch.zeros_like(like).requires_grad_(like.requires_grad), held)

        self.up = nothing(dense.up_HD[:units])
        self.gate = None if dense.gate_HD is None else nothing(dense.gate_HD[:units])
        self.down = nothing(dense.down_OH[:, :units], dense.down_OH[:, 0])


Weights = tuple[Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor, Tensor | None]
"""Into the units, its bias, their gate, its bias, out of them, its bias."""


@dataclass(frozen=True, slots=True)
class LaidOut:
    """The matrices of one noise level, and what they were made from."""

    told: tuple[Any, ...]
    sources: tuple[tuple[dict[str, Any], str, Tensor, int, int], ...]
    """Where a tensor was held, under which name, the tensor, its place in memory and its version."""
    weights: Weights

    def holds(self, told: tuple[Any, ...]) -> bool:
        """Whether they are what would be laid out now. It is asked at every call of every layer."""
        return self.told == told and all(
            held[name] is tensor and tensor._version == version and tensor.data_ptr() == pointer
            for held, name, tensor, pointer, version in self.sources
        )


class NoiseFeedForward(nn.Module):
    """A dense feed-forward layer of which every noise level runs its own share of the hidden units.

    Or, where the layout says so (4W), all run the same units, and each adds a trained change of its own to the
    matrices: no level has to learn what all need from its own samples alone.

    `active` may be changed at any time as in `ExpertFeedForward`: 0 leaves the shared units alone, "all" is the dense
    layer; several numbers are those of the levels. Samples of a batch at several levels are computed level by level. A
    call that cannot be taken apart so (tokens of several samples in one row) runs every unit.

    Source: importance by Taylor over timesteps as in Dense2MoE (Zheng et al., ICCV 2025, arXiv:2510.09094).

    Differs from the paper: experts are chosen by the noise level instead of the token, so nothing is sorted, and there
    is no router. Weights that differ with the noise level alone are as in eDiff-I (Balaji et al., 2022,
    arXiv:2211.01324), there of whole models.

    Args:
        dense: the layer; its weights are copied.
        order_LH: for every level its hidden units, most important first; the shared ones lead each of them.
        settings: the layout.
        noise: knows the level of the call under way.
        active: experts that each level runs; None: as many as the layout says.
        worth_LE: what each expert is worth at each level, for `set_active` to choose by; None where it is not known.
        tokens: that the layer sees of one sample, for what an expert costs.
    """

    order: Tensor
    """(L, H)."""
    worth: Tensor | None
    """(L, E)."""

    def __init__(
        self,
        dense: Dense,
        order_LH: Tensor,
        settings: Experts,
        noise: NoiseLevels,
        active: Sequence[int] | None = None,
        worth_LE: Tensor | None = None,
        tokens: float = 1.0,
    ) -> None:
        super().__init__()
        self.layout = Layout.parse(settings.layout)
        self.active: int | Literal["all"] | tuple[int, ...] = self.layout.active if active is None else tuple(active)
        self.activation, self.noise = dense.activation, noise
        self.cost = dense.unit_cost(tokens)
        """Multiplications of one hidden unit for one sample."""
        self.up = linear_of(dense.up_HD, dense.up_bias_H)
        self.gate = None if dense.gate_HD is None else linear_of(dense.gate_HD, dense.gate_bias_H)
        self.down = linear_of(dense.down_OH)
        self.bias = None if dense.bias_O is None else parameter_of(dense.bias_O)
        self.register_buffer("order", order_LH.to(dense.up_HD.device))
        self.register_buffer("worth", None if worth_LE is None else worth_LE.to(dense.up_HD.device))
        self.changes = nn.ModuleList()
        if self.layout.weights:
            self.changes.extend(Change(dense, self.units(level)) for level in range(self.layout.levels))
        self._laid_out: dict[int | None, LaidOut] = {}

    def units(self, level: int) -> int:
        """Hidden units that a sample at `level` goes through."""
        hidden = self.order.shape[1]
        if self.active == "all":
            return hidden
        shared, each = self.layout.widths(hidden)
        return shared + each * (self.active[level] if isinstance(self.active, tuple) else self.active)

    @property
    def fraction(self) -> float:
        """Share of the hidden units that a sample goes through, the mean over the levels."""
        levels = self.layout.levels
        return sum(self.units(level) for level in range(levels)) / (levels * self.order.shape[1])

    def forward(self, x: Tensor) -> Tensor:
        rows, weights = self._parts(x)
        if rows is None:
            return self._run(x, weights[0])
        made = torch.cat([self._run(x[some], own) for some, own in zip(rows, weights, strict=True)])
        return made[torch.cat(rows).argsort()]

    def _run(self, x: Tensor, weights: Weights) -> Tensor:
        up, up_bias, gate, gate_bias, down, bias = weights
        value = functional.linear(x, up, up_bias)
        gated = None if gate is None else functional.linear(x, gate, gate_bias)
        return functional.linear(gated_unit(value, gated, self.activation), down, bias)

    @uncompiled
    def _parts(self, x: Tensor) -> tuple[list[Tensor] | None, list[Weights]]:
        """The rows of x at each level of the call under way, None where all are alike, and the weights for them.

        torch.compile passes over this and takes weights as they come, so that layers and levels share one graph.
        """
        levels = self.noise.levels
        if levels is None or self.active == "all":
            return None, [self._weights(None, x.dtype)]
        if len(levels) == 1:
            return None, [self._weights(levels[0], x.dtype)]
        each, left = divmod(len(x), len(levels))
        if left or x.ndim < 3:
            return None, [self._weights(None, x.dtype)]
        found = sorted(set(levels))
        rows = [[row for row in range(len(x)) if levels[row // each] == level] for level in found]
        return (
            [torch.tensor(some, device=x.device) for some in rows],
            [self._weights(level, x.dtype) for level in found],
        )

    def _weights(self, level: int | None, dtype: torch.dtype) -> Weights:
        """Matrices and biases of a level's units, or of all; laid out anew only when level or weights change."""
        if torch.is_grad_enabled():
            return self._lay_out(level, dtype)
        told, held = (level, self.active, dtype), self._laid_out.get(level)
        if held is None or not held.holds(told):
            held = self._keep(level, told, self._lay_out(level, dtype))
        return held.weights

    def _keep(self, level: int | None, told: tuple[Any, ...], weights: Weights) -> LaidOut:
        """Hold on to what was laid out: of a small layer, or else of the levels that the call under way is at."""
        modules = [self, self.up, self.gate, self.down]
        modules += [] if level is None or not self.changes else list(self.changes[level].modules())
        sources = [
            (held, name, tensor)
            for module in modules
            if module is not None
            for held in (module._parameters, module._buffers)
            for name, tensor in held.items()
            if tensor is not None
        ]
        made = LaidOut(told, (), weights)
        if not any(tensor.is_inference() for _, _, tensor in sources):  # versions of which are not counted
            seen = tuple((held, name, tensor, tensor.data_ptr(), tensor._version) for held, name, tensor in sources)
            made = LaidOut(told, seen, weights)
            now = {*(self.noise.levels or ()), None}
            small = self.layout.levels * sum(one.nbytes for one in weights if one is not None) <= MOST_BYTES
            self._laid_out = {k: one for k, one in self._laid_out.items() if small or k in now} | {level: made}
        return made

    def _lay_out(self, level: int | None, dtype: torch.dtype) -> Weights:
        up, down = _matrix(self.up, dtype), _matrix(self.down, dtype)
        gate = None if self.gate is None else _matrix(self.gate, dtype)
        up_bias, gate_bias = self.up.bias, None if self.gate is None else self.gate.bias
        if level is None or (not self.changes and self.units(level) == len(up)):
            return up, up_bias, gate, gate_bias, down, self.bias
        units, bias = self.order[level, : self.units(level)], self.bias

        def rows(part: Tensor | None) -> Tensor | None:
            return None if part is None else part.index_select(0, units)

        made_up, made_gate, made_down = cast(Tensor, rows(up)), rows(gate), down.index_select(1, units)
        if self.changes:
            change = cast(Change, self.changes[level])
            made_up = _plus(made_up, _matrix(change.up, dtype), 0)
            if made_gate is not None and change.gate is not None:
                made_gate = _plus(made_gate, _matrix(change.gate, dtype), 0)
            made_down = _plus(made_down, _matrix(change.down, dtype), 1)
            bias = change.down.bias if bias is None else bias + change.down.bias
        return made_up, rows(up_bias), made_gate, rows(gate_bias), made_down, bias

    def extra_repr(self) -> str:
        return f"{self.layout}, active={self.active}"


def _plus(units: Tensor, change: Tensor, axis: int) -> Tensor:
    """Matrices of some units with the change of those that have one, the first along `axis`."""
    both = min(units.shape[axis], change.shape[axis])
    changed = units.narrow(axis, 0, both) + change.narrow(axis, 0, both)
    rest = units.shape[axis] - both
    return torch.cat([changed, units.narrow(axis, both, rest)], axis) if rest else changed


def _matrix(layer: nn.Module, dtype: torch.dtype) -> Tensor:
    return layer.held(dtype).dequantised() if isinstance(layer, IntegerLinear) else cast(Tensor, layer.weight)


def find_noise_experts(transformer: nn.Module) -> dict[str, NoiseFeedForward]:
    """The layers of a transformer whose units are chosen by the noise level, by path, in execution order."""
    return {path: module for path, module in transformer.named_modules() if isinstance(module, NoiseFeedForward)}
