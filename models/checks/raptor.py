"""What holds exactly for Raptor and for phases of depth."""

from __future__ import annotations

import math
from itertools import combinations, pairwise, product
from typing import Any

import torch
from torch import Tensor, nn

from ..companion import check
from ..phases import apart, dynamics, phases, similarity, states
from ..raptor import Raptor, RaptorBlock, RaptorConfig, take_layer

SMALL: dict[str, Any] = {"width": 8, "heads": 2, "class_tokens": 1, "registers": 2}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def planted(*lengths: int, noise: float = 0.0) -> Tensor:
    """Layers of one run are 0.9 alike, those of neighbouring runs 0.3, others less."""
    run = torch.tensor([i for i, length in enumerate(lengths) for _ in range(length)])
    gap = (run[:, None] - run).abs()
    return torch.where(gap == 0, 0.9, 0.3 - 0.1 * gap) + noise * normal(len(run), len(run))


@check("raptor", "phases of a planted similarity are the planted ones, with noise on it (how many are not)")
def planted_phases() -> float:
    wrong = 0.0
    for lengths in ((7, 5), (4, 3, 3, 2), (3, 6, 3), (5, 5), (2, 2, 2, 2)):
        found = phases(planted(*lengths, noise=0.01), count=len(lengths))
        wrong += [len(run) for run in found] != list(lengths)
    return wrong


@check(
    "raptor", "two phases are those of the best of all cuts, into any two sets, of layers planted (how many are not)"
)
def best_cut() -> float:
    wrong = 0.0
    for lengths in ((4, 3), (2, 6), (5, 5)):
        distance = 1 - planted(*lengths)
        sides = torch.tensor([(0, *rest) for rest in product((0, 1), repeat=len(distance) - 1)]).double()
        best = sides[torch.einsum("ci,ij,cj->c", sides, distance, 1 - sides).argmax()]
        wrong += [int(side) for side in best] != [0] * lengths[0] + [1] * lengths[1]
        wrong += [len(run) for run in phases(1 - distance, count=2)] != list(lengths)
    return wrong


@check(
    "raptor",
    "of a similarity without order, phases are the best of all cuts into so many (how much is lost)",
    at_most=1e-12,
)
def exhaustive() -> float:
    lost = 0.0
    for seed in range(4):
        distance = 1 - normal(9, 9, seed=seed).tanh()
        for count in range(1, 6):
            best = max(_taken_apart(distance, cuts) for cuts in combinations(range(1, 9), count - 1))
            found = tuple(run.start for run in phases(1 - distance, count=count)[1:])
            lost = max(lost, best - _taken_apart(distance, found), float(len(found) != count - 1))
    return lost


def _taken_apart(distance: Tensor, cuts: tuple[int, ...]) -> float:
    """All distance between layers of different runs, above the diagonal."""
    run = torch.bucketize(torch.arange(len(distance)), torch.tensor(cuts), right=True)
    return float((distance * (run[:, None] < run)).sum())


@check("raptor", "one more phase is worth the least share, and every layer is in one phase (how often not)")
def least() -> float:
    s, wrong = planted(4, 3, 5, noise=0.02), 0.0
    total = _taken_apart(1 - s, tuple(range(1, 12)))
    for share in (0.01, 0.1, 0.3, 0.9):
        found = phases(s, least=share)
        wrong += [i for run in found for i in run] != list(range(12))
        cuts = [tuple(run.start for run in phases(s, count=count)[1:]) for count in range(1, len(found) + 2)]
        apart_at = [_taken_apart(1 - s, one) for one in cuts]
        wrong += [b - a > share * total for a, b in pairwise(apart_at)] != [True] * (len(found) - 1) + [False]
    return wrong


@check("raptor", "a layer scale of 0 leaves only what the number of the layer says: t x", at_most=1e-12)
@torch.no_grad()
def scaled_by_depth() -> float:
    torch.manual_seed(0)
    block, x = RaptorBlock(RaptorConfig(layer_scale=0.0, width=8, heads=2)).double(), normal(2, 5, 8)
    assert block.depth is not None
    for parameter in block.depth.parameters():
        parameter.add_(torch.randn_like(parameter))
    hidden = nn.functional.silu(block.depth[0](x.new_tensor([3.0])))
    return float((block(x, 3) - (1 + block.depth[2](hidden)[16:]) * x).abs().max())


@check("raptor", "a block is torch's attention and SwiGLU with the same weights", at_most=1e-12)
@torch.no_grad()
def as_torch() -> float:
    torch.manual_seed(0)
    block = RaptorBlock(RaptorConfig(layer_scale=0.5, width=8, heads=2, depth=False)).double()
    x, attention = normal(2, 5, 8), nn.MultiheadAttention(8, 2, batch_first=True).double()
    attention.in_proj_weight.copy_(block.query_key_value.weight)
    attention.in_proj_bias.copy_(block.query_key_value.bias)
    attention.out_proj.load_state_dict(block.out.state_dict())
    z = block.norm1(x)
    y = x + 0.5 * attention(z, z, z, need_weights=False)[0]
    gate, up = block.up(block.norm2(y)).chunk(2, -1)
    return float((block(x, 1) - (y + 0.5 * block.down(nn.functional.silu(gate) * up))).abs().max())


@check("raptor", "with as many plain blocks as layers and their weights it is transformers' DINOv2", at_most=1e-10)
@torch.no_grad()
def is_its_teacher() -> float:
    teacher, pictures = dinov2()
    with states(teacher.encoder.layer) as seen:
        teacher(pictures)
    model = Raptor(RaptorConfig(lengths=(1, 1, 1), gated=False, depth=False, **SMALL)).double()
    for block, layer in zip(model.blocks, teacher.encoder.layer, strict=True):
        assert isinstance(block, RaptorBlock)
        take_layer(block, layer)
    return float((model(seen[0]) - torch.stack(seen[1:])).abs().max())


@check("raptor", "states of transformers' DINOv2 are the hidden states that it gives, and its hooks go again")
@torch.no_grad()
def states_of_dinov2() -> float:
    teacher, pictures = dinov2()
    with states(teacher.encoder.layer) as seen:
        given = teacher(pictures, output_hidden_states=True).hidden_states
    count = len(seen)
    teacher(pictures)
    far = max(float((a - b).abs().max()) for a, b in zip(seen, given, strict=True))
    return far + abs(len(seen) - count)


def dinov2() -> tuple[Any, Tensor]:
    """Of three layers, with weights drawn at random so that every part matters, and two pictures."""
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    torch.manual_seed(0)
    config = Dinov2WithRegistersConfig(
        hidden_size=8, num_hidden_layers=3, num_attention_heads=2, mlp_ratio=4, num_register_tokens=2, image_size=8,
        patch_size=2,
    )  # fmt: skip
    model = Dinov2WithRegistersModel(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model, normal(2, 3, 8, 8)


@check("raptor", "one-step and free errors of a phase are those of its block, layer by layer", at_most=1e-12)
@torch.no_grad()
def losses() -> float:
    torch.manual_seed(0)
    model, s = Raptor(RaptorConfig(lengths=(2, 3), layer_scale=0.3, **SMALL)).double(), normal(6, 2, 7, 8)
    block, single, free, x = model.blocks[1], 0.0, 0.0, s[2]
    for layer in (3, 4, 5):
        x = block(x, layer)
        for part in (slice(0, 1), slice(1, 3), slice(3, None)):
            single += float((block(s[layer - 1], layer) - s[layer])[:, part].square().mean()) / 9
            free += float((x - s[layer])[:, part].square().mean()) / 9
    expected = {1.0: single, 0.0: free, 0.25: 0.25 * single + 0.75 * free}
    return max(abs(float(model.phase_loss(s, 1, forcing)) - value) for forcing, value in expected.items())


@check(
    "raptor",
    "dynamics of a motion that is known: a turn by equal angles, in a plane, of all patches alike",
    at_most=1e-6,
)
def known_motion() -> float:
    angles = torch.arange(5, dtype=torch.float64) * 20
    at = torch.stack([angles.deg2rad().cos(), angles.deg2rad().sin()], -1)
    seen = list(at[:, None, None].expand(5, 3, 4, 2))
    d = dynamics(seen, class_tokens=1)
    end = [abs(a - math.cos(math.radians(80 - float(b)))) for a, b in zip(d.to_the_end, angles, strict=True)]
    turns = [abs(t - 20) for t in d.turn + d.class_turn]
    rest = [abs(c - 1) for c in d.coherence + d.step_rank]
    cosines = (angles[:, None] - angles).deg2rad().cos()
    alike = float((similarity(seen) - cosines).abs().max())
    moved = [abs(a - 20) for a in apart(seen[:-1], seen[1:])]
    return max(*end, *turns, *rest, *moved, alike)
