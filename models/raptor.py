"""Raptor: a few blocks, each applied again and again, that follow a vision transformer layer by layer.

Source: Jacobs et al., 2025, arXiv:2512.19941.
Shapes: L layers, B pictures, N tokens, D width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ..kernels.attention import attend
from ..kernels.feed_forward import glu
from .companion import MODELS, Companion, Size, check_divides, check_sizes
from .numbers import numbers

EVEN = {"class": 1.0, "registers": 1.0, "patches": 1.0}
AS_A_CHAIN = {"class": 0.45, "registers": 0.10, "patches": 0.45}
"""Weight of the error of each kind of token while all blocks learn together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RaptorConfig:
    """Sizes of a Raptor; the defaults follow DINOv2-B with registers in two phases."""

    lengths: tuple[int, ...] = (7, 5)
    """Layers of each phase: how often its block is applied."""
    width: int = 768
    """Of the residual stream."""
    heads: int = 12
    """Of attention."""
    expansion: int = 4
    """Hidden units over the width."""
    class_tokens: int = 1
    """Tokens at the front that stand for the picture."""
    registers: int = 4
    """Tokens behind these that stand for nothing."""
    gated: bool = True
    """SwiGLU; a plain network with GELU, as DINOv2 has, where not."""
    depth: bool = True
    """Whether a block is told which layer it is."""
    layer_scale: float = 1e-5
    """Of attention and network to begin with; small models learn faster from 0.1."""

    def __post_init__(self) -> None:
        check_divides("width over heads", self.width, self.heads)
        check_sizes(self, zero=("class_tokens", "registers"), signed=("layer_scale",))
        if not self.lengths:
            raise ConfigError("a Raptor has phases of at least one layer; give their lengths")

    @property
    def kinds(self) -> dict[str, slice]:
        """Where tokens of each kind are, of the kinds that there are."""
        ends = [0, self.class_tokens, self.class_tokens + self.registers]
        first = {name: slice(*ends) for name, ends in zip(("class", "registers"), pairwise(ends), strict=True)}
        return {name: part for name, part in first.items() if part.stop > part.start} | {
            "patches": slice(ends[2], None)
        }


class RaptorBlock(nn.Module):
    """Attention and network, each scaled by what the number of the layer says."""

    def __init__(self, config: RaptorConfig) -> None:
        super().__init__()
        width, hidden = config.width, config.expansion * config.width
        self.heads, self.gated = config.heads, config.gated
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.query_key_value, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, hidden * (1 + config.gated)), nn.Linear(hidden, width)
        self.scale1, self.scale2 = (nn.Parameter(torch.full((width,), config.layer_scale)) for _ in range(2))
        self.depth: nn.Sequential | None = None
        if config.depth:
            first, last = nn.Linear(1, 16), nn.Linear(16, 3 * width)
            nn.init.normal_(last.weight, std=1e-4)
            nn.init.zeros_(last.bias)
            self.depth = nn.Sequential(first, nn.SiLU(), last)

    def forward(self, x_BND: Tensor, layer: int) -> Tensor:
        """The states after a layer, which counts from 1."""
        first = second = whole = 1.0
        if self.depth is not None:
            first, second, whole = (1 + self.depth(x_BND.new_tensor([float(layer)]))).chunk(3)
        q, k, v = self.query_key_value(self.norm1(x_BND)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x_BND + first * self.scale1 * self.out(attend(q, k, v).transpose(1, 2).flatten(-2))
        return whole * (x + second * self.scale2 * self.network(self.norm2(x)))

    def network(self, x: Tensor) -> Tensor:
        """SwiGLU, or GELU between two matrices."""
        if not self.gated:
            return self.down(F.gelu(self.up(x)))
        (gate, up), (gate_bias, up_bias) = self.up.weight.chunk(2), self.up.bias.chunk(2)
        down, bias = self.down.weight, self.down.bias
        return glu(x, up, down, gate, up_bias_H=up_bias, gate_bias_H=gate_bias, down_bias_O=bias)


class Raptor(nn.Module):
    """The states after every layer (L, B, N, D) from those before the first (B, N, D).

    >>> model = Raptor(RaptorConfig(lengths=(2, 3), width=8, heads=2))
    >>> model(torch.zeros(1, 9, 8)).shape
    torch.Size([5, 1, 9, 8])
    """

    def __init__(self, config: RaptorConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(RaptorBlock(config) for _ in config.lengths)
        self.phase_of = [phase for phase, length in enumerate(config.lengths) for _ in range(length)]

    def forward(self, x_BND: Tensor) -> Tensor:
        return self.run(x_BND, 0, len(self.phase_of))

    def run(self, x_BND: Tensor, start: int, stop: int) -> Tensor:
        """(stop - start, B, N, D): what layers make of one another, from the states before layer `start`, from 0."""
        made = []
        for layer in range(start, stop):
            x_BND = self.blocks[self.phase_of[layer]](x_BND, layer + 1)
            made.append(x_BND)
        return torch.stack(made)

    def error(self, made: Tensor, wanted: Tensor, weights: Mapping[str, float] = EVEN) -> Tensor:
        """Mean square over each kind of token, then the weighted mean of kinds."""
        square, kinds = (made - wanted).square(), self.config.kinds
        total = sum(weights[name] for name in kinds)
        return torch.stack([weights[name] / total * square[:, :, part].mean() for name, part in kinds.items()]).sum()

    def phase_loss(self, states_LBND: Tensor, phase: int, forcing: float) -> Tensor:
        """One block against a teacher's states (L + 1), the first those before any layer.

        Args:
            forcing: share of the error after one layer from the teacher's own states; the rest is that of the block's
                own states from the phase's start on.
        """
        start = sum(self.config.lengths[:phase])
        stop = start + self.config.lengths[phase]
        wanted = states_LBND[start + 1 : stop + 1]
        free = self.error(self.run(states_LBND[start], start, stop), wanted)
        if not forcing:
            return free
        single = torch.stack([self.blocks[phase](states_LBND[layer], layer + 1) for layer in range(start, stop)])
        return forcing * self.error(single, wanted) + (1 - forcing) * free


def follow(
    model: Raptor, states_LBND: Tensor, *, steps: int, rate: float = 3e-4, batch: int = 64, seed: int = 0
) -> None:
    """Train a Raptor on a teacher's states: block by block for half of the steps, then all of them as one chain.

    Differs from the paper: kinds of tokens count alike while blocks learn alone, of every block.

    Shapes: states (L + 1, pictures, N, D), the first those before any layer, as `phases.states` gives them.

    Raises: ConfigError: states of another number of layers, or another width.
    """
    layers = len(model.phase_of)
    if states_LBND.ndim != 4 or len(states_LBND) != layers + 1 or states_LBND.shape[-1] != model.config.width:
        raise ConfigError(
            f"a Raptor of {layers} layers follows states ({layers + 1}, pictures, tokens, {model.config.width}), not "
            f"{tuple(states_LBND.shape)}"
        )
    generator = torch.Generator().manual_seed(seed)

    def learn(parameters: list[nn.Parameter], count: int, phase: int | None) -> None:
        optimiser = torch.optim.AdamW(parameters, rate, weight_decay=1e-4)
        for step in range(count):
            share = step / count
            for group in optimiser.param_groups:
                group["lr"] = (
                    rate * min(1.0, (step + 1) / (1 + count // 20)) * (0.51 + 0.49 * math.cos(math.pi * share))
                )
            rows = torch.randint(states_LBND.shape[1], (batch,), generator=generator)
            part = states_LBND[:, rows.to(states_LBND.device)]
            if phase is None:
                loss = model.error(model(part[0]), part[1:], AS_A_CHAIN)
            else:
                loss = model.phase_loss(part, phase, max(0.0, 1 - 4 * share))
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()

    for phase, block in enumerate(model.blocks):
        learn(list(block.parameters()), steps // 2, phase)
    learn(list(model.parameters()), steps - steps // 2, None)


def take_layer(block: RaptorBlock, layer: nn.Module) -> None:
    """Give a plain block (`gated` and `depth` False) the weights of a DINOv2 layer of transformers.

    Raises: ConfigError: weights of other names or sizes.
    """
    theirs, own = layer.state_dict(), block.state_dict()
    names = {"norm1": "norm1", "norm2": "norm2", "attention.o_proj": "out", "mlp.fc1": "up", "mlp.fc2": "down"}
    taken = {
        f"{ours}.{kind}": theirs.get(f"{name}.{kind}") for name, ours in names.items() for kind in ("weight", "bias")
    }
    for kind in ("weight", "bias"):
        parts = [theirs[name] for side in "qkv" if (name := f"attention.{side}_proj.{kind}") in theirs]
        taken[f"query_key_value.{kind}"] = torch.cat(parts) if parts else None
    taken |= {f"scale{i}": theirs.get(f"layer_scale{i}.lambda1") for i in (1, 2)}
    odd = [
        n for n in own.keys() | taken.keys() if n not in own or (t := taken.get(n)) is None or t.shape != own[n].shape
    ]
    if odd:
        raise ConfigError(f"these weights are not of a DINOv2 layer of this size: {', '.join(sorted(odd)[:3])}")
    block.load_state_dict({name: value for name, value in taken.items() if value is not None})


def _size(parameters: int, said: str, *lengths: int) -> Size:
    return Size(config=RaptorConfig(lengths=lengths), parameters=parameters, said=said)


RAPTOR = MODELS.add(
    "raptor",
    Companion(
        title="Block-Recurrent Dynamics in Vision Transformers",
        source="Jacobs et al., 2025, arXiv:2512.19941",
        summary="phases of a vision transformer's layers, and a few blocks applied again and again that follow them",
        build=Raptor,
        sizes={
            "one block": _size(9_490_976, "not said", 12),
            "two blocks": _size(2 * 9_490_976, "not said", 7, 5),
            "three blocks": _size(3 * 9_490_976, "not said", 7, 3, 2),
            "four blocks": _size(4 * 9_490_976, "not said", 4, 3, 3, 2),
        },
        config=RaptorConfig,
        toy=RaptorConfig(lengths=(2, 3), width=8, heads=2, layer_scale=0.1),
        example=lambda config: (numbers((2, 9, config.width), dtype=torch.float32),),
        done=(
            "states of any model's blocks, their similarity and their phases (`outpace.models.phases`)",
            "how states move: convergence, turns, coherence of patches, rank of steps, what becomes of a disturbance",
            "the surrogate, training in two stages (`follow`), weights of transformers' DINOv2 layers (`take_layer`)",
        ),
        left_out=("DINOv2's weights and training on ImageNet", "probes of classes, segmentation and depth"),
        claim="a transformer trained with stochastic depth is followed better by recurrent blocks, and by more of them",
        limits=(
            "phases are found all together, where the published code halves: of three or more they may be others",
            "blocks that begin with a layer scale of 1e-5 hardly learn within some hundred steps: take 0.1 there",
        ),
    ),
)
