"""The diffusion members of LaDiNE: K networks that see what noise hides in a label, given the picture and z."""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn
from torch.nn import functional as F

from ...errors import ConfigError, UnknownNameError
from ...registry import suggestion
from .. import published  # noqa: F401  (knows the layout of released members)

NORMS: dict[str, Callable[[int], nn.Module]] = {"layer": nn.LayerNorm, "batch": nn.BatchNorm1d}
"""Over what a member's numbers are normalised."""


class TimedLinear(nn.Module):
    """A linear layer whose outputs are scaled by learned factors of their own at each time, then normalised."""

    def __init__(self, inputs: int, width: int, times: int, norm: str = "layer") -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, width)
        self.scale = nn.Embedding(times, width)
        self.norm = NORMS[norm](width)
        nn.init.uniform_(self.scale.weight)

    def forward(self, rows_BD: torch.Tensor, times_B: torch.Tensor) -> torch.Tensor:
        return F.softplus(self.norm(self.linear(rows_BD) * self.scale(times_B)))


class LadineMember(nn.Module):
    """One estimator of the noise in labels, or of the labels under it.

    Source: arXiv:2310.15952, section III-C; layers as in Han et al., "CARD", NeurIPS 2022, arXiv:2206.07275.
    Differs: layer norm in place of batch norm, so that learning from a picture does not depend on what shares its
    batch (`norm="batch"` is theirs); two layers read a picture, where the released network and CARD's have three
    (`picture_layers=3`). With both, `outpace.models.load_published(denoiser.parts[k], ...)` takes a released member.
    """

    def __init__(
        self,
        pixels: int,
        classes: int,
        width: int,
        times: int,
        in_mean: bool,
        picture_layers: int = 2,
        norm: str = "layer",
    ) -> None:
        super().__init__()
        parts: list[nn.Module] = [nn.Flatten()]
        for layer in range(picture_layers):
            parts += [nn.Softplus()] if layer else []
            parts += [nn.Linear(width if layer else pixels, width), NORMS[norm](width)]
        self.picture = nn.Sequential(*parts)
        self.first = TimedLinear(2 * classes, width, times, norm)
        self.second = TimedLinear(width, width, times, norm)
        self.third = TimedLinear(width, width, times, norm)
        self.out = nn.Linear(width, classes)
        self.shift = nn.Linear(width, classes) if in_mean else None

    def forward(self, noised_BC: torch.Tensor, z_BC: torch.Tensor, code_BD: torch.Tensor, times_B: torch.Tensor):
        rows = self.first(torch.cat([noised_BC, z_BC], 1), times_B) * code_BD
        return self.out(self.third(self.second(rows, times_B), times_B))


class LadineDenoiser(ModelMixin, ConfigMixin):
    """The K members side by side, one model to save and load.

    Args:
        encoded_mean: the paper's prior mean, z + Enc(x); False is that of the released code, z alone, where Enc(x)
            only multiplies inside the network.
        picture_layers: of the network that reads a picture; the released one has 3.
        norm: "layer", or "batch" as released: over the rows of a batch while learning, and as learned afterwards.
    """

    @register_to_config
    def __init__(
        self,
        members: int = 3,
        sample_size: int = 8,
        in_channels: int = 1,
        num_classes: int = 10,
        width: int = 64,
        num_train_timesteps: int = 100,
        encoded_mean: bool = False,
        picture_layers: int = 2,
        norm: str = "layer",
    ) -> None:
        super().__init__()
        if norm not in NORMS:
            raise UnknownNameError(f"members do not norm over '{norm}'{suggestion(norm, list(NORMS))}")
        if members < 1 or picture_layers < 1:
            raise ConfigError(
                f"{members} members that read a picture in {picture_layers} layers; a mixture has at least 1 of each"
            )
        pixels = in_channels * sample_size**2
        self.parts = nn.ModuleList(
            LadineMember(pixels, num_classes, width, num_train_timesteps, encoded_mean, picture_layers, norm)
            for _ in range(members)
        )

    @property
    def members(self) -> int:
        return len(self.parts)

    def read(self, member: int, images_BCYX: torch.Tensor, z_BC: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What a member knows of pictures before any noise: its code (B, D), and the prior mean of labels (B, C)."""
        part = self.parts[member]
        assert isinstance(part, LadineMember)
        code = part.picture(images_BCYX)
        return code, z_BC if part.shift is None else z_BC + part.shift(code)

    def forward(
        self, member: int, noised_BC: torch.Tensor, z_BC: torch.Tensor, code_BD: torch.Tensor, times_B: torch.Tensor
    ) -> torch.Tensor:
        """What `member` sees in `noised_BC`: the noise, or the label, (B, C).

        Args:
            times_B: 0 is the cleanest; one time may stand for all rows.
        """
        return self.parts[member](noised_BC, z_BC, code_BD, times_B)
