"""What holds exactly for GTrXL."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..companion import check
from ..gtrxl import RESIDUAL_GATES, Gtrxl, GtrxlConfig, RecurrentUnitGate, by_distance


def small(*, layers: int = 2, memory: int = 30, gate: str = "gru", norm: str = "before") -> Gtrxl:
    torch.manual_seed(0)
    config = GtrxlConfig(width=8, layers=layers, heads=2, head_width=4, hidden=16, memory=memory, gate=gate, norm=norm)
    model = Gtrxl(config).double()
    for bias in (model.content_HW, model.place_HW):
        nn.init.normal_(bias)
    return model


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def in_pieces(model: Gtrxl, x: Tensor, cuts: list[int]) -> Tensor:
    parts, memory = [], None
    for part in x.split(cuts, 1):
        y, memory = model.step(part, memory)
        parts.append(y)
    return torch.cat(parts, 1)


@check("gtrxl", "scores by distance land on their keys, for 1 to 5 queries of 1 to 9 keys")
def shift() -> float:
    worst = 0.0
    for keys in range(1, 10):
        for queries in range(1, min(keys, 5) + 1):
            scores = numbers(1, 2, queries, keys)
            found = by_distance(scores)
            for i in range(queries):
                for j in range(keys - queries + i + 1):
                    far = (found[..., i, j] - scores[..., i, keys - queries + i - j]).abs().max()
                    worst = max(worst, float(far))
    return worst


@check("gtrxl", "in segments, with a memory that holds them all, as in one; nothing sees the future", at_most=1e-12)
@torch.no_grad()
def segments() -> float:
    worst = 0.0
    for norm in ("before", "after"):
        model, x = small(norm=norm), numbers(2, 20, 8)
        whole = model(x)
        changed = torch.cat([x[:, :12], -x[:, 12:]], 1)
        parts = in_pieces(model, x, [7, 1, 1, 11])
        worst = max(worst, float((parts - whole).abs().max()), float((model(changed) - whole)[:, :12].abs().max()))
    return worst


@check("gtrxl", "one block sees exactly its segment and the memory, no step before them")
@torch.no_grad()
def memory() -> float:
    model, x = small(layers=1, memory=5), numbers(1, 16, 8)
    reached = []
    for place in range(16):
        other = x.clone()
        other[:, place] *= -1
        difference = in_pieces(model, x, [4, 4, 4, 4]) - in_pieces(model, other, [4, 4, 4, 4])
        reached.append(bool(difference[:, 12].abs().max() > 0))
    return float(reached != [False] * 7 + [True] * 6 + [False] * 3)


@check("gtrxl", "no gradient goes into a memory")
def stopped() -> float:
    model, x = small(), numbers(1, 6, 8).requires_grad_()
    _, remembered = model.step(x, None)
    y, _ = model.step(numbers(1, 3, 8), remembered)
    return float(any(one.requires_grad for one in remembered) or not y.requires_grad)


@check("gtrxl", "the GRU gate is torch's GRU cell where the reset gate commutes with its matrix", at_most=1e-12)
@torch.no_grad()
def cell() -> float:
    torch.manual_seed(0)
    gate, theirs = RecurrentUnitGate(6, 2.0).double(), nn.GRUCell(6, 6).double()
    gate.from_reset.weight.copy_(torch.diag(gate.from_reset.weight.diagonal()))
    reset_y, update_y, new_y = gate.from_y.weight.chunk(3)
    reset_x, update_x = gate.from_x.weight.chunk(2)
    theirs.weight_ih.copy_(torch.cat([reset_y, -update_y, new_y]))
    theirs.weight_hh.copy_(torch.cat([reset_x, -update_x, gate.from_reset.weight]))
    theirs.bias_hh.zero_()
    theirs.bias_ih.zero_()[6:12] = gate.bias_D
    x, y = numbers(2, 9, 6)
    return float((gate(x, y) - theirs(y, x)).abs().max())


@check("gtrxl", "with a gate biased to the end, a block is the identity (GRU, highway, output, sigmoid-tanh)")
@torch.no_grad()
def identity() -> float:
    x, y = numbers(2, 9, 6)
    gates = [RESIDUAL_GATES[name](6, 1e4).double() for name in ("gru", "highway", "output", "sigtanh")]
    return max(float((gate(x, y) - x).abs().max()) for gate in gates)


@check("gtrxl", "at the start, a GRU gate moves the stream less than a third as far as a sum does", at_most=1 / 3)
@torch.no_grad()
def start() -> float:
    torch.manual_seed(0)
    x, y = numbers(2, 500, 32)
    return float((RecurrentUnitGate(32, 2.0).double()(x, y) - x).norm() / y.norm())
