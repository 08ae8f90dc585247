"""Training a small model for a trial: AdamW, a warm-up and a cosine, the same for every arm."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .data import python_source, recall, windows


def fit(model: nn.Module, loss_of: Callable[[int], Tensor], *, steps: int, rate: float = 3e-3) -> None:
    """Take `steps` steps down the loss that `loss_of` gives for each."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.1)
    warm = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1.0, (step + 1) / warm) * (0.55 + 0.45 * math.cos(math.pi * step / steps))
    )
    model.train()
    for step in range(steps):
        optimiser.zero_grad()
        loss_of(step).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    model.eval()


def text_loss(make: Callable[[], nn.Module], seed: int, *, steps: int, length: int = 64, batch: int = 16) -> float:
    """Nats a byte on held-out Python source after training on the rest; the seed alone decides the batches."""
    torch.manual_seed(seed)
    model, generator = make(), torch.Generator().manual_seed(seed)
    train, held = python_source()

    def loss(pieces: Tensor) -> Tensor:
        return F.cross_entropy(model(pieces[:, :-1]).flatten(0, 1), pieces[:, 1:].flatten())

    fit(model, lambda _step: loss(windows(train, batch, length, generator)), steps=steps)
    with torch.no_grad():
        return float(loss(windows(held, 128, length, torch.Generator().manual_seed(0))))


def recall_accuracy(make: Callable[[], nn.Module], seed: int, *, steps: int, pairs: int, batch: int = 32) -> float:
    """Share of keys whose value is named right, after training on other pairs."""
    torch.manual_seed(seed)
    model, generator = make(), torch.Generator().manual_seed(seed)

    def loss(_step: int) -> Tensor:
        tokens, targets = recall(batch, pairs, generator)
        return F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())

    fit(model, loss, steps=steps)
    tokens, targets = recall(256, pairs, torch.Generator().manual_seed(10_000))
    with torch.no_grad():
        said = model(tokens).argmax(-1)
    asked = targets != -100
    return float((said == targets)[asked].float().mean())
