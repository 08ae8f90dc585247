"""What holds exactly for GCAB."""

from __future__ import annotations

import functools
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..companion import check
from ..gcab import Gcab, GcabConfig, PositionalAttention, learn_task
from ..layers.class_attention import GatedClassBlock, TaskGates

SMALL = GcabConfig(tasks=3, width=8, heads=4, blocks=1, expansion=2, picture=4, patch=2, channels=1)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def epochs(count: int, seed: int) -> list[list[tuple[Tensor, Tensor]]]:
    """Of two batches of noise each."""
    batches = [(normal(6, 1, 4, 4, seed=seed + i).float(), torch.arange(6) % 2) for i in range(2)]
    return [batches] * count


@functools.cache
def drift(weight_decay: float) -> tuple[float, float]:
    """How far the first task's reading of the same features, and of the same pictures, moves while another is learned.

    In float32, as it is trained: what is lost in rounding is part of the promise.
    """
    torch.manual_seed(0)
    model, pictures = Gcab(SMALL), normal(5, 1, 4, 4, seed=9).float()
    learn_task(model, 2, epochs(4, 1), rate=0.02)
    with torch.no_grad():
        features = model.features(pictures)
        before = model.read(features, 0)
    learn_task(model, 2, epochs(8, 5), rate=0.02, weight_decay=weight_decay)
    with torch.no_grad():
        after, of_pictures = model.read(features, 0), model.read(model.features(pictures), 0)
    return float((after - before).abs().max()), float((of_pictures - before).abs().max())


@check("gcab", "what the first task reads in its features does not change by a bit while the second is learned")
def zero_drift() -> float:
    return drift(0.0)[0]


@check("gcab", "nor with a weight decay of 1e-6, the paper's, which float32 rounds away")
def small_decay() -> float:
    return drift(1e-6)[0]


@check("gcab", "with a weight decay of 1e-2 it does, and without any the blocks before do drift (how many do not)")
def trap() -> float:
    return float(drift(1e-2)[0] < 1e-5) + float(drift(0.0)[1] < 1e-3)


@check("gcab", "with all gates open, class attention is softmax attention of the first token", at_most=1e-12)
@torch.no_grad()
def open_gates() -> float:
    torch.manual_seed(0)
    block, token, x = GatedClassBlock(8, 2, 2).double(), normal(3, 1, 8), normal(3, 5, 8, seed=1)
    z = block.norm1(torch.cat([token, x], 1))
    q, k, v = (part(z).unflatten(-1, (2, 4)).transpose(1, 2) for part in (block.query, block.key, block.value))
    attended = ((q @ k.mT / 2).softmax(-1) @ v).transpose(1, 2).flatten(-2)[:, :1]
    y = token + block.out(attended)
    y = y + block.down(nn.functional.gelu(block.up(block.norm2(y))))
    return float((block(token, x) - y).abs().max())


@check("gcab", "with all gates closed, a token leaves class attention as it came")
@torch.no_grad()
def closed_gates() -> float:
    token, x = normal(3, 1, 8), normal(3, 5, 8, seed=1)
    closed = (torch.zeros(8, dtype=torch.float64), torch.zeros(16, dtype=torch.float64))
    return float((GatedClassBlock(8, 2, 2).double()(token, x, closed) - token).abs().max())


@check("gcab", "weights and features that a closed gate shuts out do not matter")
@torch.no_grad()
def shut_out() -> float:
    torch.manual_seed(0)
    block, token, x = GatedClassBlock(8, 2, 2).double(), normal(3, 1, 8), normal(3, 5, 8, seed=1)
    width, hidden = (normal(8, seed=2) > 0).double(), (normal(16, seed=3) > 0).double()
    before = block(token, x, (width, hidden))
    for part in (block.query, block.key, block.value, block.out):
        part.weight += normal(8, 8, seed=4) * (1 - width[:, None] * width)
    block.up.weight += normal(16, 8, seed=5) * (1 - hidden[:, None] * width)
    block.down.weight += normal(8, 16, seed=6) * (1 - width[:, None] * hidden)
    block.down.bias.add_(normal(8, seed=7) * (1 - width))
    return float((block(token, x, (width, hidden)) - before).abs().max())


@check("gcab", "positional attention is its formula, pair by pair, on a grid of 3 x 3", at_most=1e-12)
@torch.no_grad()
def positional() -> float:
    torch.manual_seed(0)
    part, x = PositionalAttention(8, 4, 3).double(), normal(2, 9, 8)
    part.gate.copy_(normal(4, seed=1))
    q, k, v = (layer(x).unflatten(-1, (4, 2)).transpose(1, 2) for layer in (part.query, part.key, part.value))
    where = torch.zeros(4, 9, 9, dtype=torch.float64)
    for a in range(9):
        for b in range(9):
            right, down = b % 3 - a % 3, b // 3 - a // 3
            where[:, a, b] = part.position(torch.tensor([right, down, right**2 + down**2], dtype=torch.float64))
    blend = part.gate.sigmoid()[:, None, None]
    weights = (1 - blend) * (q @ k.mT / 2**0.5).softmax(-1) + blend * where.softmax(-1)
    weights = weights / weights.sum(-1, keepdim=True)
    return float((part(x) - part.out((weights @ v).transpose(1, 2).flatten(-2))).abs().max())


@check("gcab", "heads start by looking at the places of a square around a patch, one each (how many do not)")
def start() -> float:
    part = PositionalAttention(9, 9, 5)
    looked_at = part.position(part.offsets_NN3)[12].argmax(0)  # from the middle of the grid
    around = torch.tensor([row * 5 + column for column in (1, 2, 3) for row in (1, 2, 3)])
    return float((looked_at != around).sum())


@check("gcab", "at the largest scale a gate is 0 or 1 where its number is 0.02 from 0", at_most=1e-6)
@torch.no_grad()
def hard() -> float:
    gates = TaskGates(1, 100, 1, 800.0)
    gates.width[0] = torch.cat([-torch.linspace(0.02, 6, 50), torch.linspace(0.02, 6, 50)])
    return float((gates(0, 800.0)[0] - gates(0)[0]).abs().max())


@check("gcab", "compensated gradients of gates are those of a sigmoid of scale 1, times the largest", at_most=1e-9)
def compensated() -> float:
    gates, worst = TaskGates(2, 6, 4, 400.0).double(), 0.0
    with torch.no_grad():
        gates.width.uniform_(-0.02, 0.02)
        gates.hidden.uniform_(-0.02, 0.02)
    for scale in (1 / 400, 3.0, 400.0):
        gates.zero_grad()
        (gates(0, scale)[0].sum() + gates(0, scale)[1].sum()).backward()
        gates.compensate(scale)
        assert gates.width.grad is not None
        slope = gates.width[0].detach().sigmoid() * gates.width[0].detach().neg().sigmoid()
        worst = max(
            worst, float((gates.width.grad[0] - 400 * slope).abs().max()), float(gates.width.grad[1].abs().max())
        )
    return worst


@check(
    "gcab", "features reach an earlier task through the projectors of all tasks since, the newest first", at_most=1e-12
)
@torch.no_grad()
def cascade() -> float:
    class Affine(nn.Module):
        def __init__(self, factor: float, shift: float) -> None:
            super().__init__()
            self.factor, self.shift = factor, shift

        def forward(self, x: Tensor) -> Tensor:
            return self.factor * x + self.shift

    torch.manual_seed(0)
    model, x = Gcab(replace(SMALL, classes=(2, 2, 2))).double(), normal(3, 1, 4, 4)
    model.projectors[0], model.projectors[1] = Affine(2.0, 3.0), Affine(5.0, 7.0)
    h = model.features(x)
    expected = [model.read(2 * (5 * h + 7) + 3, 0), model.read(5 * h + 7, 1), model.read(h, 2)]
    return float((model(x) - torch.cat(expected, 1)).abs().max())


@check("gcab", "a task takes all that is free with its gates open and nothing with them closed", at_most=1e-6)
@torch.no_grad()
def free() -> float:
    gates = TaskGates(2, 4, 4, 800.0)
    gates.width[0] = torch.tensor([1.0, 1, -1, -1])
    gates.hidden[0] = torch.tensor([1.0, -1, -1, -1])
    worst = 0.0
    for sign, share in ((1.0, 1.0), (-1.0, 0.0)):
        gates.width[1], gates.hidden[1] = sign, sign
        worst = max(worst, abs(float(gates.share_of_free(1, 800.0)) - share))
    return worst
