"""SVT in small: digits a pixel away from all places where they were learned, by dual-tree bands and by Haar's."""

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


def model_of(wavelet: str) -> Svt:
    """Two stages; the first mixes the bands of a wavelet."""
    model = Svt(SvtConfig(**SIZES, stem=8, scattered=1, parts=2, picture=SIDE, channels=1, classes=10))
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


def arm(wavelet: str) -> Callable[[int], float]:
    """Training at even places; named are digits at odd ones."""

    def run(seed: int) -> float:
        torch.manual_seed(seed)
        model, generator = model_of(wavelet), torch.Generator().manual_seed(seed)
        pictures, classes = digits()

        def loss(_step: int) -> Tensor:
            chosen = torch.randint(TEST, len(classes), (BATCH,), generator=generator)
            places = 2 * torch.randint(ROOM // 2 + 1, (BATCH, 2), generator=generator)
            return F.cross_entropy(model(placed(pictures[chosen], places)), classes[chosen])

        fit(model, loss, steps=STEPS, rate=6e-3)
        held = torch.Generator().manual_seed(10_000)
        places = 2 * torch.randint(ROOM // 2, (TEST, 2), generator=held) + 1
        with torch.no_grad():
            said = model(placed(pictures[:TEST], places)).argmax(-1)
        return float((said == classes[:TEST]).float().mean())

    return run


TRIAL = Trial(
    claim="mixing dual-tree bands names digits at places not learned better than mixing those of a plain wavelet",
    measure="share of held-out digits named right at odd places, after learning others at even ones",
    higher_is_better=True,
    arms={"dual tree": arm("dual tree"), "Haar": arm("Haar")},
    against=("Haar",),
    task=f"scikit-learn's digits three times as large on {SIDE} x {SIDE} pixels, blocks of widths 16 and 32, "
    f"{STEPS} steps of {BATCH}",
)
