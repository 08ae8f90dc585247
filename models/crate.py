"""CRATE: a transformer whose layers are steps that compress tokens into subspaces and make them sparse.

Source: Yu et al., 2023, arXiv:2306.01129, 2311.13110.
Shapes: B batch, C channels, Y X grid, N tokens, D width, K subspaces, R dimensions of a subspace.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ..kernels.attention import attend
from .companion import MODELS, Companion, Size, check_divides, check_sizes
from .layers.pictures import into_patches
from .numbers import picture_batch


@dataclass(frozen=True, kw_only=True, slots=True)
class CrateConfig:
    """Sizes of a CRATE; the defaults are the paper's base."""

    width: int = 768
    """Of the residual stream."""
    layers: int = 12
    """Steps of compression and sparsification."""
    heads: int = 12
    """Subspaces."""
    picture: int = 224
    """Pixels of a side."""
    patch: int = 16
    """Pixels of a side of a token."""
    channels: int = 3
    """Of a picture."""
    step: float = 0.1
    """eta of the sparse coding: larger steps change tokens more."""
    sparsity: float = 0.1
    """lambda of the sparse coding: the larger, the more numbers are 0."""
    classes: int = 1000
    """Logits."""

    def __post_init__(self) -> None:
        check_sizes(self)
        check_divides("pixels of a side over patches", self.picture, self.patch)
        check_divides("width over heads", self.width, self.heads)
        if not self.step > 0:
            raise ConfigError(f"a CRATE has a step above 0, not {self.step}")


class SubspaceAttention(nn.Module):
    """Attention whose queries, keys and values are the same projections onto subspaces."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.subspaces = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(self, z_BND: Tensor) -> Tensor:
        w = self.subspaces(z_BND).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return self.out(attend(w, w, w).transpose(1, 2).flatten(-2))


class SparseCoding(nn.Module):
    """One proximal step from a token towards its sparse non-negative code in a learned dictionary."""

    def __init__(self, width: int, step: float, sparsity: float) -> None:
        super().__init__()
        self.dictionary = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(width, width)))
        self.step, self.sparsity = step, sparsity

    def forward(self, z: Tensor) -> Tensor:
        """relu(z + step (D^T z - D^T D z) - step * sparsity)."""
        return sparse_step(z, z, self.dictionary, step=self.step, sparsity=self.sparsity)


def sparse_step(code: Tensor, target: Tensor, dictionary: Tensor, *, step: float, sparsity: float) -> Tensor:
    """A step of ISTA on |target - D code|^2 / 2 + sparsity |code|_1 over codes that are not negative.

    Never uphill where `step` is at most 1 over the largest eigenvalue of D^T D.
    """
    missing = target - F.linear(code, dictionary)
    return F.relu(code + step * F.linear(missing, dictionary.T) - step * sparsity)


def coding_rate(z_ND: Tensor, bases_KRD: Tensor, *, precision: float = 0.5) -> Tensor:
    """R^c: nats that tokens take to be coded subspace by subspace, each number up to `precision`.

    Source: arXiv:2306.01129, equation 7.
    """
    projected_KNR = z_ND @ bases_KRD.mT
    rank, tokens = bases_KRD.shape[1], len(z_ND)
    gram = projected_KNR.mT @ projected_KNR * (rank / (tokens * precision**2))
    return torch.linalg.slogdet(torch.eye(rank, dtype=z_ND.dtype, device=z_ND.device) + gram)[1].sum() / 2


def compression_step(z_ND: Tensor, bases_KRD: Tensor, *, step: float, precision: float = 0.5) -> Tensor:
    """The paper's step that lowers R^c: tokens move towards what attention within each subspace makes of them.

    The model's own layers leave out its first factor and learn the way back from the subspaces instead.

    Source: arXiv:2306.01129, equation 14, with orthonormal bases.
    """
    factor = step * bases_KRD.shape[1] / (len(z_ND) * precision**2)
    w_KNR = z_ND @ bases_KRD.mT
    attended = (w_KNR @ w_KNR.mT).softmax(-1) @ w_KNR
    return (1 - factor) * z_ND + factor * (attended @ bases_KRD).sum(0)


class CrateLayer(nn.Module):
    """Compression with a residual, then sparse coding without one."""

    def __init__(self, config: CrateConfig) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(config.width), nn.LayerNorm(config.width)
        self.attention = SubspaceAttention(config.width, config.heads)
        self.coding = SparseCoding(config.width, config.step, config.sparsity)

    def forward(self, z_BND: Tensor) -> Tensor:
        return self.coding(self.norm2(z_BND + self.attention(self.norm1(z_BND))))


class Crate(nn.Module):
    """Logits from pictures (B, C, Y, X) of the size it was built for.

    >>> model = Crate(CrateConfig(width=16, layers=2, heads=2, picture=8, patch=4, classes=5))
    >>> model(torch.zeros(2, 3, 8, 8)).shape
    torch.Size([2, 5])
    """

    def __init__(self, config: CrateConfig) -> None:
        super().__init__()
        self.config = config
        numbers, tokens = config.channels * config.patch**2, (config.picture // config.patch) ** 2
        self.embed = nn.Sequential(nn.LayerNorm(numbers), nn.Linear(numbers, config.width), nn.LayerNorm(config.width))
        self.class_token = nn.Parameter(torch.randn(1, 1, config.width))
        self.positions = nn.Parameter(torch.randn(1, tokens + 1, config.width))
        self.layers = nn.ModuleList(CrateLayer(config) for _ in range(config.layers))
        self.head = nn.Sequential(nn.LayerNorm(config.width), nn.Linear(config.width, config.classes))

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """(B, classes)."""
        return self.head(self.tokens(x_BCYX)[-1][:, 0])

    def tokens(self, x_BCYX: Tensor) -> list[Tensor]:
        """(B, 1 + N, D) after every layer, the class token first."""
        z = self.embed(into_patches(x_BCYX, self.config.patch))
        z = torch.cat([self.class_token.expand(len(z), -1, -1), z], 1) + self.positions
        after = []
        for layer in self.layers:
            z = layer(z)
            after.append(z)
        return after


def _size(parameters: int, said: str, width: int, layers: int, heads: int, patch: int = 16) -> Size:
    return Size(
        config=CrateConfig(width=width, layers=layers, heads=heads, patch=patch), parameters=parameters, said=said
    )


CRATE = MODELS.add(
    "crate",
    Companion(
        title="White-Box Transformers via Sparse Rate Reduction",
        source="Yu et al., 2023, arXiv:2306.01129 and arXiv:2311.13110",
        summary="a transformer of steps that compress tokens into subspaces and make them sparse",
        build=Crate,
        sizes={
            "tiny": _size(6_090_856, "6.09M", 384, 12, 6),
            "small": _size(13_116_328, "13.12M", 576, 12, 12),
            "base": _size(22_796_008, "22.80M", 768, 12, 12),
            "base-8": _size(22_804_072, "not said", 768, 12, 12, patch=8),
            "large": _size(77_641_192, "77.64M", 1024, 24, 16),
        },
        config=CrateConfig,
        toy=CrateConfig(width=16, layers=2, heads=2, picture=8, patch=4, classes=5),
        example=lambda config: (picture_batch(config.picture, channels=config.channels),),
        done=(
            "weights of the published code (`outpace.models.load_published`)",
            "the model of the published code, with the tokens after every layer",
            "the paper's own step of compression, the coding rate, and the step of sparse coding",
        ),
        left_out=("the masked autoencoder", "training on ImageNet"),
        claim="layers lower the coding rate and the number of non-zeros one after the other",
        limits=(
            "the model's layers are not the paper's step: that lowers the coding rate, the layers' residual alone "
            "raises it, and their norm takes it down again",
        ),
    ),
)
