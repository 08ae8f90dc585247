"""The mapping networks of LaDiNE: each reads the tokens of one block of the encoder and guesses the class."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from ...errors import ConfigError


class MappingNetwork(nn.Sequential):
    """Logits from numbers: layers with ReLU between them. `outpace.models.load_published` takes a released one."""

    def __init__(self, inputs: int, widths: Sequence[int], classes: int, dropout: float) -> None:
        sizes = [inputs, *widths]
        hidden = (part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU(), nn.Dropout(dropout)))
        super().__init__(*hidden, nn.Linear(sizes[-1], classes))


class LadineMapping(ModelMixin, ConfigMixin):
    """K small networks; the k-th turns the tokens of block k into z_k, probabilities that its diffusion member refines.

    Early blocks change least where a picture is perturbed, so the first K blocks are read.

    Source: arXiv:2310.15952, section III. Flattened tokens make the first matrix large (616 M weights for ViT-B/16):
    `pool` reads their mean instead. The released networks have layers of `width=(4096, 2048, 128)` and apply no dropout
    (`dropout=0`); they read 196 patches without a class token (`LadineEncoder(bare=True)`).

    Args:
        width: of all layers but the last, of which there are `layers`; or of each of them.
    """

    @register_to_config
    def __init__(
        self,
        members: int = 3,
        tokens: int = 17,
        token_width: int = 64,
        width: int | Sequence[int] = 64,
        num_classes: int = 10,
        dropout: float = 0.2,
        pool: bool = False,
        layers: int = 3,
    ) -> None:
        super().__init__()
        widths = [width] * (layers - 1) if isinstance(width, int) else list(width)
        if members < 1 or not widths:
            raise ConfigError(
                f"{members} members of {len(widths) + 1} layers; a mixture has at least 1 of at least 2 layers"
            )
        inputs = token_width if pool else tokens * token_width
        self.networks = nn.ModuleList(MappingNetwork(inputs, widths, num_classes, dropout) for _ in range(members))

    @property
    def members(self) -> int:
        return len(self.networks)

    def logits(self, tokens: Sequence[torch.Tensor]) -> torch.Tensor:
        """(K, B, C) from the tokens (B, N, D) of at least K blocks. Raises: ConfigError where there are fewer."""
        if len(tokens) < self.members:
            raise ConfigError(f"{self.members} members read one block each and the encoder gives {len(tokens)}")
        read = [rows.mean(1) if self.config["pool"] else rows.flatten(1) for rows in tokens[: self.members]]
        return torch.stack([network(rows) for network, rows in zip(self.networks, read, strict=True)])

    def forward(self, tokens: Sequence[torch.Tensor]) -> torch.Tensor:
        """z (K, B, C), probabilities."""
        return self.logits(tokens).softmax(-1)
