"""Labels drawn from every member, and what they say together: probabilities, intervals, spread.

Legend: K members, M samples of a member, S = K * M, B pictures, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...errors import ConfigError

BLOCK_ROWS = 2048
"""Labels refined together, as many as a processor's cache holds."""


@torch.no_grad()
def draw_labels(
    denoiser: Any,
    scheduler: Any,
    images_BCYX: torch.Tensor,
    z_KBC: torch.Tensor,
    *,
    samples: int,
    steps: int,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
) -> torch.Tensor:
    """`samples` labels of each member for each picture, (K * M, B, C), by `steps` steps of reverse diffusion.

    Args:
        generator: one for all, or one a picture, which then does not depend on what shares its batch.

    Differs from the paper: algorithm 1 starts around z; this starts around the prior mean, which is where the forward
        process ends. With `encoded_mean` False, the default, both are the same.

    Raises: ConfigError for less than one sample, other numbers of pictures or members than there are, or steps that the
        scheduler does not take.
    """
    members, count, classes = z_KBC.shape
    if samples < 1:
        raise ConfigError(f"{samples} samples of a member say nothing; draw at least 1")
    if members != denoiser.members or count != len(images_BCYX):
        raise ConfigError(
            f"z is {list(z_KBC.shape)} but there are {denoiser.members} members and {len(images_BCYX)} pictures"
        )
    scheduler.set_timesteps(steps)
    shape = (samples, classes)
    drawn = []
    at_once = max(1, BLOCK_ROWS // samples)
    for member in range(members):
        parts = []
        for start in range(0, count, at_once):
            part = slice(start, start + at_once)
            code, mean = denoiser.read(member, images_BCYX[part], z_KBC[member, part])
            code, mean, z = (rows.repeat_interleave(samples, 0) for rows in (code, mean, z_KBC[member, part]))
            own = generator[part] if isinstance(generator, Sequence) else generator
            label = mean + _noise(mean, own, shape)
            for time in scheduler.timesteps.tolist():
                times = torch.tensor([time], device=label.device)  # one for all rows
                seen = denoiser(member, label, z, code, times)
                fresh = _noise(mean, own, shape) if scheduler.config["eta"] > 0 and time > 0 else None
                label = scheduler.step(seen, time, label, mean, fresh).prev_sample
            parts.append(label.view(-1, samples, classes))
        drawn.append(torch.cat(parts).transpose(0, 1))
    return torch.cat(drawn)


def _noise(
    like: torch.Tensor, generator: torch.Generator | Sequence[torch.Generator] | None, shape: tuple[int, int]
) -> torch.Tensor:
    if isinstance(generator, Sequence):
        made = torch.cat([torch.randn(shape, generator=one) for one in generator])
    else:
        made = torch.randn(like.shape, generator=generator)
    return made.to(like)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What samples of labels say about each picture."""

    probabilities: torch.Tensor
    """(B, C), summing to one."""
    low: torch.Tensor
    """(B, C): 2.5 % of the samples put the class lower."""
    high: torch.Tensor
    """(B, C): 2.5 % put it higher."""
    width: torch.Tensor
    """(B, C): the paper's CPIW, how far apart the middle 95 % of the samples lie."""
    variance: torch.Tensor
    """(B, C): the paper's CNPV, four times the variance of the samples."""
    votes: torch.Tensor
    """(B, C): share of the samples that put the class highest; what the released code ranks by."""


def probabilities_of(labels: torch.Tensor, iota: float) -> torch.Tensor:
    """Pr(y = a) = softmax_a(-(y_a - 1)^2 / iota) of labels (..., C); equation 26 of the paper.

    It rewards closeness to 1, so where a class lies above 1 another one may be likelier than the highest.
    """
    return (-((labels - 1) ** 2) / iota).softmax(-1)


AVERAGES = ("probabilities", "labels")
"""How samples become one answer: each becomes probabilities and those are averaged, as in the released code, or the
mean label becomes probabilities, as in the paper."""


def averaged(labels_SBC: torch.Tensor, iota: float, average: str) -> torch.Tensor:
    """Probabilities (B, C) of samples of labels; `average` is one of AVERAGES.

    Raises: ConfigError for another `average`, or an iota that is not above 0.
    """
    if average not in AVERAGES:
        raise ConfigError(f"average '{average}' is none of {', '.join(AVERAGES)}")
    if not iota > 0:
        raise ConfigError(f"iota is {iota}; it has to be above 0")
    if average == "labels":
        return probabilities_of(labels_SBC.mean(0), iota)
    return probabilities_of(labels_SBC, iota).mean(0)


def answer(labels_SBC: torch.Tensor, iota: float, *, average: str = "probabilities") -> Answer:
    """Sum up samples of labels.

    Args:
        iota: sharpness of the probabilities, from `fit_iota` with the same `average`.
        average: one of AVERAGES.

    Raises: as `averaged`.
    """
    together, each = averaged(labels_SBC, iota, average), probabilities_of(labels_SBC, iota)
    ends = torch.tensor([0.025, 0.975], dtype=each.dtype, device=each.device)
    low, high = each.quantile(ends, dim=0)
    label_low, label_high = labels_SBC.quantile(ends, dim=0)
    ballots = torch.nn.functional.one_hot(labels_SBC.argmax(-1), labels_SBC.shape[-1]).to(each)
    return Answer(
        probabilities=together,
        low=low,
        high=high,
        width=label_high - label_low,
        variance=4 * labels_SBC.var(0, correction=0),
        votes=ballots.mean(0),
    )
