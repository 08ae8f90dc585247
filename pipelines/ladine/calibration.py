"""One number that turns scores into honest probabilities, found on clean held-out pictures only."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch.nn import functional as F

from ...errors import ConfigError
from ...kernels.precision import widened
from .sampling import averaged


def fit_iota(labels_SBC: torch.Tensor, classes_B: torch.Tensor, average: str = "probabilities") -> float:
    """The iota under which samples of labels, `averaged`, explain `classes_B` best.

    Differs from the paper: it minimises the negative log likelihood, which is smooth and proper; the paper searches the
    calibration error, a step function of few hundred pictures that several iotas share.

    Raises: ConfigError where there is nothing to fit on.
    """
    return _minimum(lambda iota: averaged(widened(labels_SBC), iota, average), classes_B)


def fit_temperature(logits_BC: torch.Tensor, classes_B: torch.Tensor) -> float:
    """The temperature that logits are divided by (Guo et al., 2017, arXiv:1706.04599). Raises: as `fit_iota`."""
    return _minimum(lambda temperature: (widened(logits_BC) / temperature).softmax(-1), classes_B)


def _minimum(probabilities: Callable[[float], torch.Tensor], classes_B: torch.Tensor) -> float:
    from scipy.optimize import minimize_scalar

    if not len(classes_B):
        raise ConfigError("no pictures to calibrate on; give at least one")

    def loss(log_value: float) -> float:
        return float(F.nll_loss(probabilities(math.exp(log_value)).clamp(min=1e-12).log(), classes_B))

    return math.exp(minimize_scalar(loss, bounds=(math.log(0.01), math.log(100.0)), method="bounded").x)
