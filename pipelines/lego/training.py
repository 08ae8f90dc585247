"""What a LEGO model is trained on: every brick's answer, at noise levels drawn around those where most is decided."""

from __future__ import annotations

import torch

from .model import LegoTransformer2DModel

LOG_SIGMA = (-1.2, 1.2)
"""Mean and standard deviation of the logarithm of the noise in training."""


def lego_loss(
    model: LegoTransformer2DModel,
    clean_BCYX: torch.Tensor,
    class_labels: torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:
    """Weighted squared error of the denoised picture, the mean over the bricks.

    The weight (sigma^2 + sigma_data^2) / (sigma * sigma_data)^2 is 1 / c_out^2: what is left is the error of the
    network's own output.

    Source: Karras et al. 2022, arXiv:2206.00364, table 1; Zheng et al. 2024, arXiv:2310.06389, equation 5.
    """
    data = model.config["sigma_data"]
    level = (torch.randn(len(clean_BCYX), generator=generator) * LOG_SIGMA[1] + LOG_SIGMA[0]).exp()
    noise = torch.randn(clean_BCYX.shape, generator=generator).to(clean_BCYX)
    sigma = level.to(clean_BCYX)[:, None, None, None]
    scale = (sigma**2 + data**2).sqrt()
    noised = clean_BCYX + sigma * noise
    target = (clean_BCYX - data**2 / scale**2 * noised) * scale / (sigma * data)
    answers = model.answers(noised / scale, level.log().to(clean_BCYX) / 4, class_labels)
    return torch.stack([(answer.float() - target).square().mean() for answer in answers]).mean()
