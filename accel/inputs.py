"""What a denoiser call was given, read off its arguments: timestep, latents, guidance rows, what must stay the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


def timestep_of(named: dict[str, Any]) -> float:
    """The call's timestep as one number; the largest where tokens have their own."""
    for name in ("timestep", "t", "timesteps"):
        value = named.get(name)
        if isinstance(value, torch.Tensor) and value.numel():
            return float(value.max())
        if isinstance(value, (int, float)):
            return float(value)
    return 0.0


def latents_of(named: dict[str, Any]) -> Any:
    """The noisy latents among a transformer's arguments: a tensor, a list of tensors, or None."""
    for name in ("hidden_states", "x", "latents"):
        if named.get(name) is not None:
            return named[name]
    return None


def tied_rows(named: dict[str, Any]) -> int:
    """How many rows carry the same latents: 2 with guidance batched in one tensor, 3 with two guidances, else 1."""
    latents = latents_of(named)
    if latents is None:
        return 1
    batch = len(latents)
    for parts in (3, 2):
        if batch < parts or batch % parts:
            continue
        size = batch // parts
        chunks = [latents[i * size : (i + 1) * size] for i in range(parts)]
        if all(_equal(chunks[0], chunk) for chunk in chunks[1:]):
            return parts
    return 1


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return a.shape == b.shape and torch.equal(a, b)
    return len(a) == len(b) and all(_equal(x, y) for x, y in zip(a, b, strict=True))


def call_signature(
    named: dict[str, Any], hidden: torch.Tensor, transformer: nn.Module, blocks: Sequence[nn.Module]
) -> tuple[Any, ...]:
    """What must stay the same for a history to hold: shapes, types, which inputs are given, which adapters are on."""
    given = tuple(sorted(name for name, value in named.items() if value is not None))
    scales = tuple(
        value.get("scale")
        for name, value in named.items()
        if name.endswith("attention_kwargs") and isinstance(value, dict)
    )
    controls = tuple(name for name, value in named.items() if "controlnet" in name and name in given and acts(value))
    return (tuple(hidden.shape), hidden.dtype, hidden.device, given, controls, scales, adapters_of(transformer, blocks))


def acts(residuals: Any) -> bool:
    """False where a ControlNet's residuals are zeros, as they are outside its control_guidance_start and _end."""
    if isinstance(residuals, torch.Tensor):
        return bool(residuals.any())
    if isinstance(residuals, dict):
        residuals = list(residuals.values())
    return any(acts(value) for value in residuals) if isinstance(residuals, (list, tuple)) else True


def adapters_of(transformer: nn.Module, blocks: Sequence[nn.Module]) -> tuple[Any, ...]:
    """The LoRA adapters in force on a transformer with their weights, or an empty tuple."""
    if not getattr(transformer, "_hf_peft_config_loaded", False):
        return ()
    for module in blocks[-1].modules():
        scaling = getattr(module, "scaling", None)
        if isinstance(scaling, dict):
            active = getattr(module, "active_adapters", ())
            return (tuple(active), tuple(sorted(scaling.items())), bool(getattr(module, "disable_adapters", False)))
    return ()
