"""The encoder of LaDiNE: a small vision transformer that also hands out what each of its blocks sees."""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from ...errors import ConfigError


class LadineEncoder(ModelMixin, ConfigMixin):
    """A vision transformer (class token, learned positions, pre-norm blocks) trained by cross entropy, then frozen.

    Source: Shen et al., "LaDiNE", IEEE Transactions on Medical Imaging 44(12), 2025, arXiv:2310.15952,
    section III; the transformer is Dosovitskiy et al., 2020, arXiv:2010.11929.

    Differs from the released code: positions and the class token reach the blocks, as the paper says.

    Raises: ConfigError where the sizes do not divide.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int = 8,
        in_channels: int = 1,
        patch_size: int = 2,
        width: int = 64,
        num_layers: int = 6,
        num_heads: int = 4,
        num_classes: int = 10,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if sample_size % patch_size:
            raise ConfigError(f"patches of {patch_size} pixels do not fill pictures of {sample_size}; choose a divisor")
        if width % num_heads:
            raise ConfigError(f"a width of {width} does not divide into {num_heads} heads; choose a divisor")
        self.patches = nn.Conv2d(in_channels, width, patch_size, stride=patch_size)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, (sample_size // patch_size) ** 2 + 1, width))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, num_heads, 4 * width, dropout, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)

    def matrices(self) -> list[nn.Parameter]:
        """The matrices of the blocks, for an optimiser that treats them apart."""
        return [weight for weight in self.blocks.parameters() if weight.ndim == 2]

    def tokens(self, images_BCYX: torch.Tensor, blocks: int | None = None) -> list[torch.Tensor]:
        """What comes out of the first `blocks` blocks (None: of all), each (B, N, D).

        Raises: ConfigError for pictures of another shape than the encoder was built for.
        """
        expected = (self.config["in_channels"], self.config["sample_size"], self.config["sample_size"])
        if images_BCYX.ndim != 4 or tuple(images_BCYX.shape[1:]) != expected:
            raise ConfigError(f"pictures of shape {list(images_BCYX.shape)}; the encoder takes [B, *{list(expected)}]")
        rows = self.patches(2 * images_BCYX - 1).flatten(2).transpose(1, 2)
        rows = torch.cat([self.class_token.expand(len(rows), -1, -1), rows], 1) + self.positions
        seen = []
        for block in list(self.blocks)[:blocks]:
            rows = block(rows)
            seen.append(rows)
        return seen

    def forward(self, images_BCYX: torch.Tensor) -> torch.Tensor:
        """Logits (B, C): what the plain transformer says."""
        return self.head(self.norm(self.tokens(images_BCYX)[-1][:, 0]))
