"""What holds exactly for MossFormer2."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..companion import check
from ..mossformer import Mossformer
from ..mossformer2 import DilatedMemory, GatedMemory, Mossformer2Config, build_mossformer2

SMALL = Mossformer2Config(width=8, blocks=2, group=4, key_width=8, filter=3, dropout=0.0, memory_width=6, order=2)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def model_of() -> Mossformer:
    """Small, in float64, with weights large enough that every part matters."""
    torch.manual_seed(0)
    model = build_mossformer2(SMALL).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.4 * torch.randn_like(parameter))
    return model


@check("mossformer2", "with memories that say nothing it is MossFormer with the same weights", at_most=1e-12)
@torch.no_grad()
def without_memory() -> float:
    model, mixture = model_of(), normal(2, 90)
    before = model(mixture)
    plain = Mossformer(SMALL).double().eval()
    for part in model.blocks:
        if isinstance(part, GatedMemory):
            part.expand.weight.zero_()
            part.expand.bias.zero_()
    own = plain.state_dict()
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if name in own})
    silent = float((before - model(mixture)).abs().max()) < 1e-3  # memories must have said something
    return float((model(mixture) - plain(mixture)).abs().max()) + float(silent)


@check("mossformer2", "a memory's filters are sums over frames ever further apart, of what came before", at_most=1e-12)
@torch.no_grad()
def filters() -> float:
    torch.manual_seed(0)
    memory, x = DilatedMemory(3, order=2, layers=2).double(), normal(2, 11, 3)
    h = F.linear(F.linear(x, memory.linear.weight, memory.linear.bias).relu(), memory.project.weight)
    seen, out = [h], h
    for layer, (conv, activation) in enumerate(zip(memory.filters, memory.activations, strict=True)):
        inputs, gap = torch.cat(seen, -1), 2**layer
        assert isinstance(conv, torch.nn.Conv1d) and isinstance(activation, torch.nn.PReLU)
        made = torch.zeros_like(h)
        for channel in range(3):
            for part in range(layer + 1):
                for tap in range(3):
                    for frame in range(11):
                        place = frame + (tap - 1) * gap
                        if 0 <= place < 11:
                            source = inputs[:, place, channel * (layer + 1) + part]
                            made[:, frame, channel] += conv.weight[channel, part, tap] * source
        made = (made - made.mean(1, keepdim=True)) / (made.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        out = torch.where(made > 0, made, activation.weight * made)
        seen = [out, *seen]
    return float((memory(x) - (x + out)).abs().max())


@check("mossformer2", "a recording alone gives what it gives in a batch", at_most=1e-12)
@torch.no_grad()
def alone() -> float:
    model, mixture = model_of(), normal(3, 90)
    return float((model(mixture) - torch.cat([model(one[None]) for one in mixture])).abs().max())


@check("mossformer2", "a memory adds what the paper's formula counts at width 512: 568,065 parameters")
def count() -> float:
    with torch.device("meta"):
        return abs(sum(parameter.numel() for parameter in GatedMemory(Mossformer2Config()).parameters()) - 568_065)
