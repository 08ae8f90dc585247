"""Pictures made worse, to see what a classifier then says: noise, loss of detail, light, cover, crops and attacks.

Pictures are (B, C, Y, X) in 0..1 and stay there. Noise is clipped, which the released code of LaDiNE does not do.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch.nn import functional as F

from ...registry import Registry

Corruption = Callable[[torch.Tensor, torch.Generator], torch.Tensor]
LogProbabilities = Callable[[torch.Tensor], torch.Tensor]
"""Pictures to log-probabilities (B, C), with gradients: what an attack climbs on."""

CORRUPTIONS: Registry[Corruption] = Registry("corruption")


def _clean(images: torch.Tensor, _: torch.Generator) -> torch.Tensor:
    return images


def _noise(images: torch.Tensor, generator: torch.Generator, *, scale: float) -> torch.Tensor:
    return (images + scale * torch.randn(images.shape, generator=generator)).clamp(0, 1)


def _low_resolution(images: torch.Tensor, _: torch.Generator, *, times: int) -> torch.Tensor:
    side = images.shape[-1]
    small = F.interpolate(images, size=side // times, mode="bilinear", antialias=True)
    return F.interpolate(small, size=side, mode="bilinear").clamp(0, 1)


def _contrast(images: torch.Tensor, _: torch.Generator, *, share: float) -> torch.Tensor:
    mean = images.mean((1, 2, 3), keepdim=True)
    return (mean + (1 - share) * (images - mean)).clamp(0, 1)


def _brightness(images: torch.Tensor, _: torch.Generator, *, shift: float) -> torch.Tensor:
    return (images + shift).clamp(0, 1)


def _occlusion(images: torch.Tensor, generator: torch.Generator, *, share: float) -> torch.Tensor:
    side = images.shape[-1]
    edge = max(1, round(share * side))
    corner = torch.randint(0, side - edge + 1, (len(images), 2, 1), generator=generator)
    places = torch.arange(side)
    inside = (places >= corner) & (places < corner + edge)
    return images.masked_fill((inside[:, 0, :, None] & inside[:, 1, None, :])[:, None], 0.0)


def _crop(images: torch.Tensor, generator: torch.Generator, *, share: float) -> torch.Tensor:
    shift = (1 - share) * (2 * torch.rand(len(images), 2, 1, generator=generator) - 1)
    affine = torch.cat([share * torch.eye(2).expand(len(images), 2, 2), shift], 2)
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False).clamp(0, 1)


CORRUPTIONS.add("clean", _clean)
CORRUPTIONS.add("noise-25", partial(_noise, scale=0.25))
CORRUPTIONS.add("noise-50", partial(_noise, scale=0.5))
CORRUPTIONS.add("noise-100", partial(_noise, scale=1.0))
CORRUPTIONS.add("low-resolution", partial(_low_resolution, times=2))
CORRUPTIONS.add("contrast-30", partial(_contrast, share=0.7))
CORRUPTIONS.add("brightness-30", partial(_brightness, shift=0.3))
CORRUPTIONS.add("occlusion-40", partial(_occlusion, share=0.4))
CORRUPTIONS.add("crop-80", partial(_crop, share=0.8))


def attack(
    images_BCYX: torch.Tensor,
    classes_B: torch.Tensor,
    log_probabilities: LogProbabilities,
    *,
    radius: float,
    steps: int = 1,
) -> torch.Tensor:
    """Pictures no pixel of which is moved further than `radius`, so that the right class is made unlikely.

    One step is FGSM (Goodfellow et al., 2014, arXiv:1412.6572); more are PGD (Madry et al., 2017, arXiv:1706.06083),
    each of 2.5 / steps of the radius.
    """
    moved = images_BCYX.clone()
    stride = radius if steps == 1 else 2.5 * radius / steps
    for _ in range(steps):
        moved.requires_grad_(True)
        loss = F.nll_loss(log_probabilities(moved), classes_B, reduction="sum")
        (slope,) = torch.autograd.grad(loss, moved)
        moved = moved.detach() + stride * slope.sign()
        moved = torch.clamp(moved, images_BCYX - radius, images_BCYX + radius).clamp(0, 1)
    return moved
