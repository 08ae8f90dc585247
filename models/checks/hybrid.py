"""What holds exactly for hybrid language models and each of their mixers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..companion import check
from ..hybrid import AttentionConfig, HybridConfig, HybridLanguageModel, pattern
from ..layers.attention import SoftmaxAttention
from ..layers.mixers import MIXERS


@check("hybrid", "units are 8 D / 3, rounded up to a multiple of 256, where none are given")
def units() -> float:
    widths = [1, 95, 96, 97, 288, 289, 512, 768, 1024, 1025, 2048, 4096]
    given = [HybridConfig(layer_types=("gla",), width=width).units for width in widths]
    rounded = [min(n for n in range(256, 12_000, 256) if 3 * n >= 8 * width) for width in widths]
    return max(abs(a - b) for a, b in zip(given, rounded, strict=True))


def model_of(*kinds: str, **attention: object) -> HybridLanguageModel:
    """A small model in float64, so that only a mistake is larger than rounding."""
    torch.manual_seed(0)
    config = AttentionConfig(heads=4, **attention)  # pyright: ignore[reportArgumentType]
    return HybridLanguageModel(
        HybridConfig(layer_types=kinds, width=32, heads=2, vocabulary=17, hidden=48, attention=config)
    ).double()


def tokens(count: int = 70) -> Tensor:
    return torch.randint(17, (2, count), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def streamed(model: HybridLanguageModel, cuts: tuple[int, ...] = (40, 1, 1, 5, 23)) -> float:
    """How far reading in pieces is from reading at once."""
    parts, state = [], None
    for part in tokens().split(list(cuts), 1):
        logits, state = model.step(part, state)
        parts.append(logits)
    return float((torch.cat(parts, 1) - model(tokens())).abs().max())


@torch.no_grad()
def leaked(model: HybridLanguageModel) -> float:
    """How much a changed token changes the logits before it."""
    one, other = tokens(), tokens()
    other[:, 50] = (other[:, 50] + 1) % 17
    return float((model(one) - model(other))[:, :50].abs().max())


def _streams(kinds: tuple[str, ...]) -> Callable[[], float]:
    return lambda: max(streamed(model_of(*kinds)), leaked(model_of(*kinds)))


for name in (*MIXERS, "full"):
    check("hybrid", f"{name}: read in pieces as at once, and causal, in float64", at_most=1e-12)(_streams((name,)))
check("hybrid", "gla, full, deltanet together: read in pieces as at once", at_most=1e-12)(
    _streams(("gla", "full", "deltanet"))
)


@check("hybrid", "24 layers at 3:1 have full attention at 3, 7, 11, 15, 19, 23 and every ratio its count")
def places() -> float:
    found = [i for i, kind in enumerate(pattern(24, "gla", 3)) if kind == "full"]
    counts = [pattern(24, "gla", ratio).count("full") for ratio in (24, 12, 6, 3)]
    return float(found != [3, 7, 11, 15, 19, 23] or counts != [0, 1, 3, 6])


@check("hybrid", "the cache of keys of a 3:1 hybrid is a quarter of the full model's")
@torch.no_grad()
def cache() -> float:
    def held(kinds: tuple[str, ...]) -> int:
        model = model_of(*kinds)
        _, state = model.step(tokens(), None)
        full = [
            one for block, one in zip(model.blocks, state, strict=True) if isinstance(block.mixer, SoftmaxAttention)
        ]
        return sum(one.keys.numel() + one.values.numel() for one in full)

    return abs(4 * held(pattern(4, "gla", 3)) - held(pattern(4, "gla", 0)))


@check("hybrid", "a window as long as the text is no window; a shorter one reads in pieces too", at_most=1e-12)
@torch.no_grad()
def windows() -> float:
    wide = (model_of("full", window=70)(tokens()) - model_of("full")(tokens())).abs().max()
    return max(float(wide), streamed(model_of("full", "full", window=7)))
