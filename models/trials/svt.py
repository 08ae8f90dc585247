"""SVT in small: digits that have moved since they were learned, by dual-tree bands, Haar's, and attention alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...kernels.wavelets import haar, inverse_haar
from ..svt import Scattering, Svt, SvtConfig
from .digits import TEST, digits
from .fit import fit
from .trial import Trial

SIDE, ROOM, STEPS, BATCH = 32, 8, 150, 32
SIZES: dict[str, Any] = {"widths": (16, 32), "depths": (1, 1), "heads": (2, 2), "expansions": (2, 2)}


def plain_wavelet(x: Tensor) -> tuple[Tensor, Tensor]:
    """Haar's transform in the form of the dual tree's: the means of squares, and three real bands among six."""
    low, *bands = haar(x).chunk(4, 1)
    high = torch.stack([*bands, *(torch.zeros_like(band) for band in bands)], 2)
    return (low / 2).repeat_interleave(2, 2).repeat_interleave(2, 3), torch.complex(high, torch.zeros_like(high))


def plain_inverse(low: Tensor, high: Tensor) -> Tensor:
    """The way back; what a network puts into the other bands and into imaginary parts is lost."""
    return inverse_haar(torch.cat([2 * F.avg_pool2d(low, 2), *high.real[:, :, :3].unbind(2)], 1))


def model_of(wavelet: str | None) -> Svt:
    """Two stages; the first mixes the bands of a wavelet, or attends where None."""
    model = Svt(
        SvtConfig(**SIZES, stem=8, scattered=int(wavelet is not None), parts=2, picture=SIDE, channels=1, classes=10)
    )
    for part in model.modules():
        if isinstance(part, Scattering) and wavelet == "Haar":
            part.transform, part.inverse = plain_wavelet, plain_inverse  # pyright: ignore[reportAttributeAccessIssue]
    return model


def placed(pictures: Tensor, offsets: Tensor) -> Tensor:
    """(B, 1, SIDE, SIDE): digits three times as large, each at its own place in the room that is left."""
    large = pictures.repeat_interleave(3, 2).repeat_interleave(3, 3)
    made = torch.zeros(len(large), 1, SIDE, SIDE)
    for one, digit, (top, left) in zip(made, large, offsets.tolist(), strict=True):
        one[:, top : top + 24, left : left + 24] = digit
    return made


def arm(wavelet: str | None) -> Callable[[int], float]:
    """Training in the middle; named are digits a pixel or two away from there."""

    def run(seed: int) -> float:
        torch.manual_seed(seed)
        model, generator = model_of(wavelet), torch.Generator().manual_seed(seed)
        pictures, classes = digits()

        def loss(_step: int) -> Tensor:
            chosen = torch.randint(TEST, len(classes), (BATCH,), generator=generator)
            middle = torch.full((BATCH, 2), ROOM // 2)
            return F.cross_entropy(model(placed(pictures[chosen], middle)), classes[chosen])

        fit(model, loss, steps=STEPS, rate=2e-3)
        held = torch.Generator().manual_seed(10_000)
        moves = torch.randint(1, 3, (TEST, 2), generator=held) * (2 * torch.randint(2, (TEST, 2), generator=held) - 1)
        with torch.no_grad():
            said = model(placed(pictures[:TEST], ROOM // 2 + moves)).argmax(-1)
        return float((said == classes[:TEST]).float().mean())

    return run


TRIAL = Trial(
    claim="mixing dual-tree bands names digits that have moved better than mixing those of a plain wavelet",
    measure="share of held-out digits named right a pixel or two from where others were learned",
    higher_is_better=True,
    arms={"dual tree": arm("dual tree"), "Haar": arm("Haar"), "attention": arm(None)},
    against=("Haar",),
    task=f"scikit-learn's digits three times as large on {SIDE} x {SIDE} pixels, blocks of widths 16 and 32, "
    f"{STEPS} steps of {BATCH}",
)
