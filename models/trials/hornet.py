"""HorNet's claim in small: products of neighbours, which a mixer of too low an order provably cannot make."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..hornet import RecursiveGatedConv
from .fit import fit
from .trial import Trial

FACTORS, STEPS, WIDTH = 4, 200, 32


def arm(order: int) -> Callable[[int], float]:
    """Training one mixer of an order, between two matrices."""

    def run(seed: int) -> float:
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        model = nn.Sequential(nn.Conv2d(1, WIDTH, 1), RecursiveGatedConv(WIDTH, order), nn.Conv2d(WIDTH, 1, 1))

        def error(count: int, drawn: torch.Generator) -> Tensor:
            signs = torch.randint(2, (count, 1, 6, 12), generator=drawn) * 2.0 - 1
            product = torch.stack([signs[..., i : 12 - FACTORS + 1 + i] for i in range(FACTORS)]).prod(0)
            return (model(signs)[..., : product.shape[-1]] - product).square().mean()

        fit(model, lambda _step: error(8, generator), steps=STEPS, rate=1e-2)
        with torch.no_grad():
            return float(error(256, torch.Generator().manual_seed(10_000)))

    return run


TRIAL = Trial(
    claim=f"order {FACTORS - 1} makes the product of {FACTORS} neighbours, and a lower order cannot",
    measure="mean square error; 1 is that of a constant, and the least that a lower order can reach",
    higher_is_better=False,
    arms={f"order {order}": arm(order) for order in (FACTORS - 1, FACTORS - 2)},
    against=(f"order {FACTORS - 2}",),
    task=f"pictures of 6 x 12 random signs, one mixer of width {WIDTH}, {STEPS} steps of 8 pictures",
)
