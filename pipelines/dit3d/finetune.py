"""Fine-tuning with few parameters: scales of what each part of a block adds, biases, and class embeddings.

Source: Xie et al., "DiffFit: Unlocking Transferability of Large Diffusion Models via Simple Parameter-Efficient
Fine-Tuning", 2023, arXiv:2304.06648, section 3, which DiT-3D (arXiv:2307.01831) takes over.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ...errors import ConfigError


class Scale(nn.Module):
    """Multiplies each channel, by 1 at first."""

    def __init__(self, width: int, like: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width, dtype=like.dtype, device=like.device))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return hidden_states * self.weight


def small_parameters(model: Any, *, ends: bool = True) -> list[nn.Parameter]:
    """Add scales to `model`, freeze the rest but the few, and give what is left to train.

    Args:
        ends: also train the layers before and behind the blocks, which are new in a model made `from_image`.

    Raises: ConfigError where `model` has its scales already.
    """
    if any(isinstance(part, Scale) for part in model.modules()):
        raise ConfigError("this model has its scales already; merge_scales(model) folds them in")
    model.requires_grad_(False)
    for block in model.transformer_blocks:
        out, last = block.attn1.to_out, block.ff.net[-1]
        out[1] = Scale(out[0].out_features, out[0].weight)
        block.ff.net.append(Scale(last.out_features, last.weight))
    for name, weight in model.named_parameters():
        inside = name.startswith("transformer_blocks.")
        few = name.endswith("bias") or "class_embedder" in name or isinstance(_owner(model, name), Scale)
        weight.requires_grad_(few if inside else ends)
    return [weight for weight in model.parameters() if weight.requires_grad]


def merge_scales(model: Any) -> Any:
    """Fold the scales into the layers before them; `model` computes the same and saves as it did without."""
    with torch.no_grad():
        for block in model.transformer_blocks:
            for layer, scale in ((block.attn1.to_out[0], block.attn1.to_out[1]), (block.ff.net[-2], block.ff.net[-1])):
                if isinstance(scale, Scale):
                    layer.weight *= scale.weight[:, None]
                    layer.bias *= scale.weight
            if isinstance(block.attn1.to_out[1], Scale):
                block.attn1.to_out[1] = nn.Dropout(0.0)
                del block.ff.net[-1]
    return model.requires_grad_(True)


def _owner(model: nn.Module, name: str) -> nn.Module:
    return model.get_submodule(name.rpartition(".")[0])
