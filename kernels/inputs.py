"""What several kernels ask of their inputs."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import ConfigError


def check_one_type(operation: str, **tensors: Tensor | None) -> None:
    """Raises: ConfigError: these are not of one floating-point type on one device; under autocast types may differ."""
    given = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    first = next(iter(given.values()))
    cast = not first.is_meta and torch.is_autocast_enabled(first.device.type)
    if any(
        not x.is_floating_point() or x.device != first.device or (x.dtype != first.dtype and not cast)
        for x in given.values()
    ):
        told = ", ".join(f"{name} {x.dtype} on {x.device}" for name, x in given.items())
        raise ConfigError(f"{operation} takes inputs of one floating-point type on one device, not {told}")
