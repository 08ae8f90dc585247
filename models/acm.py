"""Adaptive Computation Modules: feed-forward networks of a trained model as learners, of which a token runs a few.

Learners are in order: the sum of the first k approximates the network, better with every one. A small gate says k.

Source: Wójcik et al., 2023, arXiv:2312.10193.
Shapes: D width, O outputs, R tokens, N learners, M units of a learner.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from .companion import MODELS, Companion, check_divides, check_sizes


@dataclass(frozen=True, kw_only=True, slots=True)
class AcmConfig:
    """How a network is split, and how its gate chooses."""

    learners: int = 4
    """N: the higher, the finer the choice, and the more calls."""
    gate_width: int = 16
    """Of the gate's two inner layers."""
    temperature: float = 0.8
    """Of the choice in training; the lower, the nearer to the hard one and the noisier its gradient."""
    improvement: float = 1.2
    """A learner is worth running where the error before it is so many times the error after it."""

    def __post_init__(self) -> None:
        check_sizes(self)
        if not self.temperature > 0 or not self.improvement >= 1:
            raise ConfigError("temperature of an ACM must be more than 0, and improvement at least 1")


class AdaptiveModule(nn.Module):
    """sum over n < k of W2_n GELU(W1_n x + b1_n), k from the token."""

    def __init__(self, width: int, hidden: int, out: int, config: AcmConfig) -> None:
        super().__init__()
        check_divides("units of a feed-forward network over learners", hidden, config.learners)
        self.config, self.counts_R = config, torch.zeros(0)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, out)
        # Without activations in between, as in the published code: a product of small matrices.
        self.gate = nn.Sequential(
            nn.Linear(width, config.gate_width),
            nn.Linear(config.gate_width, config.gate_width),
            nn.Linear(config.gate_width, config.learners + 1),
        )
        self.choose: Callable[[Tensor], Tensor] | None = None

    def prefixes(self, x_RD: Tensor) -> Tensor:
        """(N + 1, R, O): what the first 0, 1, ... N learners put out."""
        units = F.gelu(self.up(x_RD)).unflatten(-1, (self.config.learners, -1))
        weights = self.down.weight.unflatten(1, (self.config.learners, -1))
        each = torch.einsum("rnm,onm->nro", units, weights)
        return F.pad(each.cumsum(0), (0, 0, 0, 0, 1, 0)) + self.down.bias

    def first(self, x_RD: Tensor, count_R: Tensor) -> Tensor:
        """(R, O): the first `count` learners of every token, and only these are run.

        Raises: ConfigError: counts that are not whole numbers from 0 to N, one a token.
        """
        if count_R.shape != x_RD.shape[:1] or count_R.is_floating_point():
            raise ConfigError(f"an ACM takes one whole number a token, not {tuple(count_R.shape)} {count_R.dtype}")
        N = self.config.learners
        if count_R.numel() and not 0 <= int(count_R.min()) <= int(count_R.max()) <= N:
            raise ConfigError(f"an ACM of {N} learners runs 0 to {N} of them")
        out = self.down.bias.expand(len(x_RD), -1).clone()
        ups, biases = self.up.weight.chunk(N), self.up.bias.chunk(N)
        for n, down in enumerate(self.down.weight.chunk(N, 1)):
            rows = (count_R > n).nonzero()[:, 0]
            out = out.index_add(0, rows, F.gelu(F.linear(x_RD[rows], ups[n], biases[n])) @ down.T)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """In training every prefix is computed and the choice is soft behind a hard one; otherwise only what is chosen.

        `counts_R` has the choices afterwards; `choose` (tokens -> counts), where set, stands in for the gate.
        """
        rows = x.flatten(0, -2)
        if self.choose is not None or not self.training:
            self.counts_R = self.gate(rows).argmax(-1) if self.choose is None else self.choose(rows)
            return self.first(rows, self.counts_R).view(*x.shape[:-1], -1)
        chosen = F.gumbel_softmax(self.gate(rows), self.config.temperature, hard=True)
        self.counts_R = chosen @ torch.arange(chosen.shape[-1], device=x.device, dtype=x.dtype)
        return torch.einsum("rn,nro->ro", chosen, self.prefixes(rows)).view(*x.shape[:-1], -1)

    def learner_loss(self, x_RD: Tensor, target_RO: Tensor) -> Tensor:
        """Mean squared error of every prefix with at least one learner: the first phase."""
        return (self.prefixes(x_RD)[1:] - target_RO).square().mean()

    def gate_loss(self, x_RD: Tensor, target_RO: Tensor) -> Tensor:
        """Likelihood of stopping before the first learner that is not worth running: the second phase."""
        return F.cross_entropy(self.gate(x_RD), self.worth(x_RD, target_RO))

    @torch.no_grad()
    def worth(self, x_RD: Tensor, target_RO: Tensor) -> Tensor:
        """(R): how many learners to run, from the errors of all prefixes."""
        errors = (self.prefixes(x_RD) - target_RO).norm(dim=-1)
        small = errors[:-1] < self.config.improvement * errors[1:]
        stop = torch.cat([small, torch.ones_like(small[:1])]).int()
        return stop.argmax(0)


def adaptive(model: nn.Module, config: AcmConfig, *, sliced: bool = False) -> nn.Module:
    """A copy whose feed-forward networks (a Sequential that begins with Linear, GELU, Linear) are adaptive modules.

    Args:
        sliced: learners begin as slices of the trained network, so that all of them together are it, exactly; otherwise
            with fresh weights, as in the paper.

    Raises: ConfigError: the model has no such network.
    """
    model = copy.deepcopy(model)
    found = False
    for network in list(model.modules()):
        parts = list(network) if isinstance(network, nn.Sequential) else []
        if len(parts) < 3 or not isinstance(parts[1], nn.GELU):
            continue
        up, down = parts[0], parts[2]
        if not (isinstance(up, nn.Linear) and isinstance(down, nn.Linear)):
            continue
        module = AdaptiveModule(up.in_features, up.out_features, down.out_features, config).to(up.weight)
        with torch.no_grad():
            module.down.bias.copy_(down.bias if sliced else torch.zeros_like(down.bias))
            if sliced:
                module.up.load_state_dict(up.state_dict())
                module.down.weight.copy_(down.weight)
        assert isinstance(network, nn.Sequential)
        network[0], network[1], network[2] = module, nn.Identity(), nn.Identity()
        found = True
    if not found:
        raise ConfigError(f"{type(model).__name__} has no feed-forward network of Linear, GELU, Linear to adapt")
    return model


def modules_of(model: nn.Module) -> list[AdaptiveModule]:
    """The adaptive modules of a model, in order."""
    return [part for part in model.modules() if isinstance(part, AdaptiveModule)]


def distil(
    student: nn.Module, teacher: nn.Module, batches: Iterable[Tensor], *, phase: str, rate: float | None = None
) -> list[float]:
    """Fit every adaptive module to the network that it stands for, on what that one sees in the teacher; the losses.

    Args:
        student: made from the teacher by `adaptive`.
        phase: "learners", or afterwards "gates".
        rate: of Adam; the paper's (1e-3 for learners, 1e-2 for gates) where None.

    Raises: ConfigError: an unknown phase.
    """
    if phase not in ("learners", "gates"):
        raise ConfigError(f"phase of an ACM's distillation must be learners or gates, not '{phase}'")
    modules = modules_of(student)
    places = [name for name, part in student.named_modules() if isinstance(part, AdaptiveModule)]
    seen: list[tuple[Tensor, Tensor]] = []

    def look(network: nn.Module, inputs: tuple[Tensor], _output: Tensor) -> None:
        assert isinstance(network, nn.Sequential)
        rows = inputs[0].flatten(0, -2)
        seen.append((rows, network[2](network[1](network[0](rows)))))

    hooks = [teacher.get_submodule(name.rpartition(".")[0]).register_forward_hook(look) for name in places]
    learnt = [p for m in modules for p in (m.gate if phase == "gates" else nn.ModuleList([m.up, m.down])).parameters()]
    optimiser, losses = torch.optim.Adam(learnt, lr=rate or {"learners": 1e-3, "gates": 1e-2}[phase]), []
    try:
        for batch in batches:
            seen.clear()
            with torch.no_grad():
                teacher(batch)
            each = [
                module.learner_loss(x, y) if phase == "learners" else module.gate_loss(x, y)
                for module, (x, y) in zip(modules, seen, strict=True)
            ]
            optimiser.zero_grad()
            torch.stack(each).sum().backward()
            nn.utils.clip_grad_norm_(learnt, 1.0)
            optimiser.step()
            losses.append(float(torch.stack(each).detach().mean()))
    finally:
        for hook in hooks:
            hook.remove()
    return losses


def auxiliary_loss(model: nn.Module, share: float, samples: int) -> Tensor:
    """What the third phase adds to the task's loss: the budget, and that choices differ by token and by sample.

    Args:
        share: of all learners that should be run, 0 to 1.
        samples: in the batch that was just run in training.

    Raises: ConfigError: a share out of range, or a model without adaptive modules.
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"share of an ACM's learners must be in [0, 1], not {share}")
    modules = modules_of(model)
    if not modules:
        raise ConfigError(f"{type(model).__name__} has no adaptive modules; make them with adaptive")
    N = modules[0].config.learners
    counts = torch.stack([module.counts_R.view(samples, -1) for module in modules])
    budget = (counts.mean() / N - share).abs()
    levels = torch.arange(N + 1, device=counts.device, dtype=counts.dtype)
    histogram = (1 - (counts[..., None] - levels).abs()).clamp(min=0).mean(2)
    entropy = -(histogram * histogram.clamp(min=1e-9).log()).sum(-1).mean() / math.log(N + 1)
    used = counts.mean((0, 2)) / N
    spread = (used[:, None] - used).abs().mean()
    return 0.1 * budget - 0.05 * entropy - 0.05 * spread


ACM = MODELS.add(
    "acm",
    Companion(
        title="Adaptive Computation Modules: Granular Conditional Computation for Efficient Inference",
        source="Wójcik et al., 2023, arXiv:2312.10193",
        summary="feed-forward networks of a trained model as learners, of which a token runs as many as it needs",
        use="outpace.models.acm.adaptive(model, AcmConfig()) changes a trained model",
        done=(
            "modules, gates, and their distillation from a trained model in three phases",
            "the labels of gates by improvement, the budget, and both terms that keep choices apart",
            "only the learners that are chosen are run",
        ),
        left_out=(
            "attention projections: feed-forward networks alone, as for the paper's speech model",
            "ViT-B and XLS-R at their size, and the paper's Triton kernel",
        ),
        claim="at no more work, choosing the number of learners by token is better than one number for all",
        limits=(
            "training takes the paper's formula: in its published code the task's loss does not reach the gates",
            "an output bias is kept, which no learners at all still add",
            "a label leaves out the learner that improves too little; the published code runs it",
        ),
    ),
)
