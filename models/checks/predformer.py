"""What holds exactly for PredFormer."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

from ..companion import check
from ..layers.pictures import from_patches, into_patches
from ..predformer import LAYOUTS, GatedBlock, PredFormer, PredFormerConfig, Stack, sinusoids


def config(layout: str, blocks: int = 12) -> PredFormerConfig:
    return PredFormerConfig(layout=layout, frames=3, picture=(8, 12), patch=4, blocks=blocks, width=16, heads=2)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@check(
    "predformer", "blocks over space and over time are those blocks on every frame and every place alone", at_most=1e-5
)
@torch.no_grad()
def folds() -> float:
    torch.manual_seed(0)
    x, worst = normal(2, 3, 6, 16), 0.0
    for over in "ST":
        stack = Stack(over, 2, config("bin-ts")).eval()
        expected = torch.zeros_like(x)
        for batch, place in product(range(2), range(3 if over == "S" else 6)):
            at = (batch, place) if over == "S" else (batch, slice(None), place)
            expected[at] = stack.norm(stack.blocks(x[at][None]))[0]
        worst = max(worst, float((stack(x) - expected).abs().max()))
    return worst


@check(
    "predformer",
    "what a frame depends on: with blocks over space only, itself; with any over time, every frame (1 if not)",
)
def frames_seen() -> float:
    wrong = 0.0
    for layout in LAYOUTS:
        torch.manual_seed(0)
        model = PredFormer(config(layout))
        for alone in (False, True):
            if alone:
                if layout == "full":
                    continue
                with torch.no_grad():
                    for stack in model.stacks:
                        if isinstance(stack, Stack) and stack.over == "T":
                            for block in stack.blocks:
                                assert isinstance(block, GatedBlock)
                                block.out.weight.zero_()
            x = normal(1, 3, 1, 8, 12).requires_grad_()
            model(x)[0, 2].square().sum().backward()
            assert x.grad is not None
            seen = (x.grad[0] != 0).flatten(1).any(1).tolist()
            wrong += seen != [not alone, not alone, True]
    return wrong


@check(
    "predformer",
    "without positions, a model over all tokens follows its frames and patches when they move",
    at_most=1e-5,
)
@torch.no_grad()
def equivariant() -> float:
    torch.manual_seed(0)
    model, x = PredFormer(config("full")).eval(), normal(1, 3, 1, 8, 12)
    model.get_buffer("positions_TND").zero_()
    swapped = x[:, [2, 0, 1]]
    return float((model(swapped) - model(x)[:, [2, 0, 1]]).abs().max())


@check("predformer", "positions are the table's formula, entry by entry", at_most=1e-6)
def positions() -> float:
    table, worst = sinusoids(7, 6).double(), 0.0
    for position, i in product(range(7), range(6)):
        angle = torch.tensor(position / 10_000 ** (2 * (i // 2) / 6), dtype=torch.float64)
        worst = max(worst, float((table[position, i] - (angle.cos() if i % 2 else angle.sin())).abs()))
    return worst


@check("predformer", "pictures come back from their patches")
def patches() -> float:
    x = normal(2, 3, 8, 12)
    parts = into_patches(x, 4)
    first = (parts[0, 1].unflatten(0, (4, 4, 3)).permute(2, 0, 1) - x[0, :, :4, 4:8]).abs().max()
    return float(first + (from_patches(parts, 4, (8, 12)) - x).abs().max())


@check("predformer", "frames beyond those it was built for are predicted from its own", at_most=1e-6)
@torch.no_grad()
def rollout() -> float:
    torch.manual_seed(0)
    model, x = PredFormer(config("quad-tsst")).eval(), normal(1, 3, 1, 8, 12)
    seven = model.predict(x, 7)
    return float((seven[:, 3:6] - model(model(x))).abs().max()) + abs(seven.shape[1] - 7)
