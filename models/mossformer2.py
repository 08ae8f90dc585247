"""MossFormer2: MossFormer with a memory after every block that is recurrent in what it does, and not in how it runs.

Source: Zhao et al., 2023, arXiv:2312.11825.
Shapes: B batch, N frames, D width, C channels of the memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .companion import MODELS, Companion, Size
from .mossformer import ConvolvedLinear, Mossformer, MossformerConfig
from .numbers import numbers


@dataclass(frozen=True, kw_only=True, slots=True)
class Mossformer2Config(MossformerConfig):
    """Sizes of a MossFormer2; the defaults are the paper's."""

    memory_width: int = 256
    """Channels of a memory, whatever the width of a block."""
    order: int = 20
    """Frames that a filter of the memory sees to each side, its own among them."""
    layers: int = 2
    """Filters one behind the other, each over frames twice as far apart as the last one's."""

    def __post_init__(self) -> None:
        MossformerConfig.__post_init__(self)


class DilatedMemory(nn.Module):
    """Every channel over frames further and further away; a layer sees what all layers before it made."""

    def __init__(self, channels: int, order: int, layers: int) -> None:
        super().__init__()
        self.linear, self.project = nn.Linear(channels, channels), nn.Linear(channels, channels, bias=False)
        self.filters = nn.ModuleList(
            nn.Conv1d(
                channels * (i + 1), channels, 2 * order - 1, dilation=2**i, padding=2**i * (order - 1),
                groups=channels, bias=False,
            )
            for i in range(layers)
        )  # fmt: skip
        self.norms = nn.ModuleList(nn.InstanceNorm1d(channels, affine=True) for _ in range(layers))
        self.activations = nn.ModuleList(nn.PReLU(channels) for _ in range(layers))

    def forward(self, x_BNC: Tensor) -> Tensor:
        seen = out = self.project(F.relu(self.linear(x_BNC))).mT
        for conv, norm, activation in zip(self.filters, self.norms, self.activations, strict=True):
            out = activation(norm(conv(seen)))
            seen = torch.cat([out, seen], 1)
        return x_BNC + out.mT


class GatedMemory(nn.Module):
    """What follows a block: a gate on a memory, in fewer channels."""

    def __init__(self, config: Mossformer2Config) -> None:
        super().__init__()
        channels = config.memory_width
        self.reduce, self.activation = nn.Linear(config.width, channels), nn.PReLU()
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.u, self.v = (
            ConvolvedLinear(nn.LayerNorm(channels), channels, channels, config.filter, config.dropout) for _ in range(2)
        )
        self.memory = DilatedMemory(channels, config.order, config.layers)
        self.expand = nn.Linear(channels, config.width)

    def forward(self, x_BND: Tensor) -> Tensor:
        x = self.norm1(self.activation(self.reduce(x_BND)))
        return x_BND + self.expand(self.norm2(self.v(x) * self.memory(self.u(x)) + x))


def build_mossformer2(config: Mossformer2Config) -> Mossformer:
    """Each speaker's samples from a mixture; see `Mossformer`."""
    return Mossformer(config, lambda: GatedMemory(config))


def _size(parameters: int, said: str, width: int, blocks: int, speakers: int = 2) -> Size:
    config = Mossformer2Config(width=width, blocks=blocks, speakers=speakers)
    return Size(config=config, parameters=parameters, said=said)


MOSSFORMER2 = MODELS.add(
    "mossformer2",
    Companion(
        title="MossFormer2: Combining Transformer and RNN-Free Recurrent Network for Enhanced Time-Domain Monaural "
        "Speech Separation",
        source="Zhao et al., 2023, arXiv:2312.11825",
        summary="MossFormer with a gated memory of dilated filters after every block",
        build=build_mossformer2,
        sizes={
            "two-speakers": _size(55_735_410, "55.7M", 512, 24),
            "three-speakers": _size(55_998_066, "not said", 512, 24, speakers=3),
            "small": _size(37_755_382, "37.8M", 384, 25),
        },
        config=Mossformer2Config,
        toy=Mossformer2Config(width=16, blocks=2, group=8, key_width=8, memory_width=8, order=3),
        example=lambda config: (numbers((2, 100), dtype=torch.float32),),
        done=("the model, its memory of any width, order and depth", "weights of ClearerVoice's own code"),
        left_out=("training on WSJ0-2mix, Libri2Mix, WHAM! and WHAMR!", "the variant that enhances one voice"),
        claim="a memory after every block separates better than blocks alone",
        limits=("norms of the memory are over all frames: nothing can be said before a recording has ended",),
    ),
)
