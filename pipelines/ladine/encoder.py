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

    Differs from the released code, whose transformer is timm's ViT-B/16: what mapping networks read has been told
    places and sees a class token, as the paper says (`bare=True` is theirs); pixels go in from -1 to 1
    (`centred=False`: from 0 to 1); norms have a constant of 1e-5 (`norm_eps=1e-6`). With all three,
    `outpace.models.load_published` takes its weights. There one more member, without a mapping network, refines the
    transformer's own answer; here none does.

    Args:
        bare: blocks that mapping networks read see patches alone; the transformer's own answer does not change.
        centred: pixels go in from -1 to 1 rather than from 0 to 1.

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
        norm_eps: float = 1e-5,
        centred: bool = True,
        bare: bool = False,
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
                width,
                num_heads,
                4 * width,
                dropout,
                activation="gelu",
                layer_norm_eps=norm_eps,
                batch_first=True,
                norm_first=True,
            )
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(width, eps=norm_eps)
        self.head = nn.Linear(width, num_classes)

    def matrices(self) -> list[nn.Parameter]:
        """The matrices of the blocks, for an optimiser that treats them apart."""
        return [weight for weight in self.blocks.parameters() if weight.ndim == 2]

    def tokens(self, images_BCYX: torch.Tensor, blocks: int | None = None) -> list[torch.Tensor]:
        """What comes out of the first `blocks` blocks (None: of all), each (B, N, D); no class token if `bare`.

        Raises: ConfigError for pictures of another shape than the encoder was built for.
        """
        self._check(images_BCYX)
        return self._seen(images_BCYX, blocks, placed=not self.config["bare"])

    def _check(self, images_BCYX: torch.Tensor) -> None:
        expected = (self.config["in_channels"], self.config["sample_size"], self.config["sample_size"])
        if images_BCYX.ndim != 4 or tuple(images_BCYX.shape[1:]) != expected:
            raise ConfigError(f"pictures of shape {list(images_BCYX.shape)}; the encoder takes [B, *{list(expected)}]")

    def _seen(self, images_BCYX: torch.Tensor, blocks: int | None, *, placed: bool) -> list[torch.Tensor]:
        pixels = 2 * images_BCYX - 1 if self.config["centred"] else images_BCYX
        rows = self.patches(pixels).flatten(2).transpose(1, 2)
        if placed:
            rows = torch.cat([self.class_token.expand(len(rows), -1, -1), rows], 1) + self.positions
        seen = []
        for block in list(self.blocks)[:blocks]:
            rows = block(rows)
            seen.append(rows)
        return seen

    def forward(self, images_BCYX: torch.Tensor) -> torch.Tensor:
        """Logits (B, C): what the plain transformer says."""
        self._check(images_BCYX)
        return self.head(self.norm(self._seen(images_BCYX, None, placed=True)[-1][:, 0]))
