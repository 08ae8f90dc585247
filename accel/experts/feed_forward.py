"""The layer that stands where a dense feed-forward layer stood: a shared expert, routed experts and their router."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, cast

import torch
from torch import Tensor, nn

from ...kernels.feed_forward import gated_unit
from ...kernels.moe import Experts as PackedExperts
from ...kernels.moe import expert_ffn
from .dense import Dense
from .fused import linear_of, parameter_of
from .layout import Layout
from .scores import ROUTER_DEVIATION, score
from .settings import Experts
from .uncompiled import uncompiled


class Router(nn.Module):
    """Scores every expert for every token.

    What a token is scored by is the layer's own input, which the block has modulated with timestep and text.
    """

    def __init__(self, width: int, experts: int, scores: str) -> None:
        super().__init__()
        self.scores = scores
        self.weight = nn.Parameter(torch.empty(experts, width).normal_(std=ROUTER_DEVIATION))

    def forward(self, x_TD: Tensor) -> Tensor:
        """Probabilities (T, experts)."""
        logits_TE = score(x_TD, self.weight)
        if self.scores == "sigmoid":
            return logits_TE.sigmoid()
        # Down the columns: torch's CPU softmax is several times slower along a last dimension of a dozen.
        return logits_TE.t().contiguous().softmax(0).t()


class SharedExpert(nn.Module):
    """The hidden units that every token goes through."""

    def __init__(self, part: Dense) -> None:
        super().__init__()
        self.activation = part.activation
        self.up = linear_of(part.up_HD, part.up_bias_H)
        self.gate = None if part.gate_HD is None else linear_of(part.gate_HD, part.gate_bias_H)
        self.down = linear_of(part.down_OH)

    def forward(self, x: Tensor) -> Tensor:
        up, gate = self.up(x), None if self.gate is None else self.gate(x)
        return self.down(gated_unit(up, gate, self.activation))


class RoutedExperts(nn.Module):
    """The weights of the experts that tokens choose among, packed along a first dimension E, matrices (in, out)."""

    def __init__(self, parts: list[Dense]) -> None:
        super().__init__()
        self.activation = parts[0].activation
        self.up = _packed([part.up_HD.mT for part in parts])
        self.down = _packed([part.down_OH.mT for part in parts])
        self.gate = _packed([None if part.gate_HD is None else part.gate_HD.mT for part in parts])
        self.up_bias = _packed([part.up_bias_H for part in parts])
        self.gate_bias = _packed([part.gate_bias_H for part in parts])

    @uncompiled  # how many tokens an expert gets depends on values
    def forward(self, x_TD: Tensor, index_TK: Tensor, gates_TK: Tensor) -> Tensor:
        if x_TD.is_meta:
            return self._counted(x_TD, index_TK.shape[1])
        weights = PackedExperts(
            activation=self.activation,
            up_EDH=cast(Tensor, self.up),
            down_EHO=cast(Tensor, self.down),
            gate_EDH=self.gate,
            up_bias_EH=self.up_bias,
            gate_bias_EH=self.gate_bias,
        )
        return expert_ffn(x_TD, weights, index_TK, gates_TK)

    def _counted(self, x_TD: Tensor, active: int) -> Tensor:
        # Without values nothing can be routed. Any expert costs what the first does: so the work has its true size.
        up, down = cast(Tensor, self.up), cast(Tensor, self.down)
        rows = x_TD.new_empty(len(x_TD) * active, x_TD.shape[1])
        hidden = rows @ up[0]
        if self.gate is not None:
            hidden = hidden * (rows @ self.gate[0])
        return (hidden @ down[0]).unflatten(0, (len(x_TD), active)).sum(1)


class ExpertFeedForward(nn.Module):
    """One shared expert that every token goes through, and of the routed experts the best few for each token.

    Source: Dense2MoE (Zheng et al., ICCV 2025, arXiv:2510.09094).

    Routing is by token and drops none, so a sample does not depend on those that it shares a batch with. `active` may
    be changed at any time: 0 leaves the shared expert alone, "all" runs every expert with gate 1, which is the dense
    layer again.

    Args:
        dense: the layer that is split; its weights are copied.
        order_H: its hidden units, most important first.
        settings: the layout and how gates are made.
    """

    def __init__(self, dense: Dense, order_H: Tensor, settings: Experts) -> None:
        super().__init__()
        self.layout = Layout.parse(settings.layout)
        self.scaling = settings.scaling
        self.active: int | Literal["all"] = self.layout.active
        self.listener: Callable[[ExpertFeedForward, Tensor, Tensor], None] | None = None
        """Told the probabilities (T, experts) and the chosen experts (T, K) of every call."""
        shared, routed = self.layout.deal(order_H)
        self.shared = SharedExpert(dense.take(shared)) if len(shared) else None
        self.experts = RoutedExperts([dense.take(units) for units in routed])
        self.router = Router(dense.width, self.layout.experts, settings.scores).to(dense.up_HD.device)
        self.bias = None if dense.bias_O is None else parameter_of(dense.bias_O)

    def forward(self, x: Tensor) -> Tensor:
        y = None if self.shared is None else self.shared(x)
        if self.active != 0 or y is None:
            x_TD = x.reshape(-1, x.shape[-1])
            routed = self.experts(x_TD, *self.route(x_TD)).reshape(*x.shape[:-1], -1)
            y = routed if y is None else y + routed
        return y if self.bias is None else y + self.bias

    def route(self, x_TD: Tensor) -> tuple[Tensor, Tensor]:
        """Experts (T, K) and gates (T, K) of every token."""
        if self.active == "all":
            index = torch.arange(self.layout.experts, device=x_TD.device).expand(len(x_TD), -1)
            return index, x_TD.new_ones(()).expand(index.shape)
        probabilities_TE = self.router(x_TD)
        gates, index = probabilities_TE.topk(self.active, dim=-1)
        if self.listener is not None:
            self.listener(self, probabilities_TE, index)
        if self.scaling == "normalize":
            gates = gates / gates.sum(-1, keepdim=True).clamp_min(1e-9)
        elif self.scaling == "experts":
            gates = gates * self.layout.experts
        elif self.scaling == "one":
            gates = 1.0 + (gates - gates.detach()) / gates.detach().clamp_min(1e-9)
        return index, gates

    def extra_repr(self) -> str:
        return f"{self.layout}, active={self.active}"


def find_experts(transformer: nn.Module) -> dict[str, ExpertFeedForward]:
    """The expert layers of a transformer by path, in execution order of its blocks."""
    return {path: module for path, module in transformer.named_modules() if isinstance(module, ExpertFeedForward)}


def _packed(parts: list[Tensor | None]) -> nn.Parameter | None:
    given = [part for part in parts if part is not None]
    if not given:
        return None
    return nn.Parameter(torch.stack([part.detach() for part in given]), given[0].requires_grad)
