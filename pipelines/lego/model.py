"""The transformer of LEGO: a stack of bricks, each a small DiT over sub-images of its own size, each a full answer.

Legend: B batch, C channels, Y X pixels, S sub-images of a brick, R pixels of their side, N tokens of one, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import CombinedTimestepLabelEmbeddings, get_2d_sincos_pos_embed
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.normalization import AdaLayerNormZero
from torch import nn
from torch.nn import functional as F

from ...errors import ConfigError
from ...kernels.tiles import Tiles
from ..published import shift_frequencies
from .sizes import SIZES


class LegoBlock(nn.Module):
    """A DiT block whose tokens see those of their own sub-image only."""

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.norm1 = AdaLayerNormZero(width)
        self.attn1 = Attention(query_dim=width, heads=heads, dim_head=head_width, bias=True)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.ff = FeedForward(width, activation_fn="gelu-approximate")

    def forward(self, hidden_states: torch.Tensor, condition: torch.Tensor, length: int) -> torch.Tensor:
        """Shapes: hidden_states (B, S * N, D) in and out, condition (B, D); length is N."""
        seen, gate, shift, scale, gate_ff = self.norm1(hidden_states, emb=condition)
        attended = self.attn1(seen.reshape(-1, length, seen.shape[-1])).view_as(seen)
        hidden_states = hidden_states + gate[:, None] * attended
        seen = self.norm2(hidden_states) * (1 + scale[:, None]) + shift[:, None]
        return hidden_states + gate_ff[:, None] * self.ff(seen)


class LegoBrick(nn.Module):
    """Refines what the brick before it answered: patches of each sub-image, DiT blocks over those, pixels again."""

    position: torch.Tensor

    def __init__(
        self, size: int, patch: int, layers: int, channels: int, seen: int, width: int, heads: int, head_width: int
    ) -> None:
        super().__init__()
        self.size, self.patch, self.width = size, patch, width
        self.patches = nn.Conv2d(seen, width, patch, stride=patch)
        self.transformer_blocks = nn.ModuleList(LegoBlock(width, heads, head_width) for _ in range(layers))
        self.norm_out = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.proj_out_1 = nn.Linear(width, 2 * width)
        self.proj_out_2 = nn.Linear(width, patch**2 * channels)
        position = get_2d_sincos_pos_embed(width, size // patch, base_size=size // patch, output_type="pt")
        self.register_buffer("position", position.float(), persistent=False)

    def forward(
        self,
        hidden_states: torch.Tensor,
        sample: torch.Tensor,
        condition: torch.Tensor,
        overlap: int = 0,
        shift: tuple[int, int] = (0, 0),
    ) -> torch.Tensor:
        """An answer for the whole picture.

        Args:
            hidden_states: what the brick before answered, (B, C, Y, X); a brick that is left out hands it on.
            sample: the noised picture and its coordinates, (B, C + 2, Y, X).
            condition: (B, D).
            overlap, shift: of its windows; see `outpace.kernels.tiles.Tiles`.
        """
        windows = Tiles(sides=(self.size, self.size), overlap=(overlap, overlap), shift=shift)
        size = (sample.shape[2], sample.shape[3])
        # The first brick of a stack sees no answer; it has no weights for one.
        first = self.patches.in_channels == sample.shape[1]
        seen = windows.split(sample if first else torch.cat([hidden_states, sample], 1))
        tokens = self.patches(seen).flatten(2).transpose(1, 2) + self.position.to(seen.dtype)
        length = tokens.shape[1]
        tokens = tokens.reshape(len(sample), -1, tokens.shape[2])
        for block in self.transformer_blocks:
            tokens = block(tokens, condition, length)
        shift_out, scale = self.proj_out_1(F.silu(condition)).chunk(2, 1)
        tokens = self.proj_out_2(self.norm_out(tokens) * (1 + scale[:, None]) + shift_out[:, None])
        side = self.size // self.patch
        parts = tokens.reshape(len(seen), side, side, self.patch, self.patch, -1)
        return windows.join(parts.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3), size)


class LegoTransformer2DModel(ModelMixin, ConfigMixin):
    """Sees in a picture of any size what is to be taken out of it, brick by brick.

    Each brick was trained to answer in full, so that any may be left out; the last that runs has the word. The output
    is the network's own F of Karras et al. (2022, arXiv:2206.00364, equation 7), which diffusers' EDM schedulers
    expect: the input is scaled to unit variance and the timestep is a quarter of the noise's logarithm.

    Source: Zheng et al., "Learning Stackable and Skippable LEGO Bricks for Efficient, Reconfigurable, and
    Variable-Resolution Diffusion Modeling", ICLR 2024, arXiv:2310.06389.
    Differs from the paper: pictures need not be square, nor a multiple of the bricks' sizes, and windows of bricks may
    overlap. Labels are a table rather than a matrix on one-hot vectors; the numbers of weights agree.

    The authors' weights want `freq_shift=0.0, down_first=True` and are taken by `outpace.models.load_published`.

    Shapes: (B, C, Y, X) in and out.

    Args:
        sample_size: pixels of a training picture's side; bricks of this size are image bricks.
        brick_sizes: pixels of the sub-images' side, brick by brick in the order in which they run.
        patch_sizes: pixels of a token's side, a brick each.
        num_layers: blocks, a brick each.
        num_embeds_ada_norm: classes; the number itself stands for no class.
        sigma_data: standard deviation of the data, for the loss and for schedulers that are not EDM's.
        class_dropout: share of labels dropped in train mode.
        freq_shift: of the frequencies that times are told by; 1 as in diffusers' DiT, 0 in the authors' code.
        down_first: whether the first channel of coordinates counts down, as in the authors' code, or across.

    Raises: ConfigError for bricks that do not fit.
    """

    _no_split_modules = ["LegoBrick"]  # noqa: RUF012  (diffusers wants lists)
    _repeated_blocks = ["LegoBlock"]  # noqa: RUF012

    @register_to_config
    def __init__(
        self,
        sample_size: int = 32,
        in_channels: int = 3,
        brick_sizes: Sequence[int] = (4, 16, 32),
        patch_sizes: Sequence[int] = (2, 8, 2),
        num_layers: Sequence[int] = (2, 4, 6),
        num_attention_heads: int = 4,
        attention_head_dim: int = 32,
        num_embeds_ada_norm: int = 10,
        sigma_data: float = 0.5,
        class_dropout: float = 0.1,
        freq_shift: float = 1.0,
        down_first: bool = False,
    ) -> None:
        super().__init__()
        if not brick_sizes or not len(brick_sizes) == len(patch_sizes) == len(num_layers):
            raise ConfigError("brick_sizes, patch_sizes and num_layers take one number a brick, and there must be one")
        for size, patch, layers in zip(brick_sizes, patch_sizes, num_layers, strict=True):
            if patch < 1 or layers < 1 or size < patch or size % patch or sample_size % size:
                raise ConfigError(
                    f"no brick of {size} pixels with patches of {patch} and {layers} blocks for pictures of "
                    f"{sample_size}: bricks divide the picture, patches divide a brick"
                )
        width = num_attention_heads * attention_head_dim
        self.condition = CombinedTimestepLabelEmbeddings(num_embeds_ada_norm, width, class_dropout)
        self.bricks = nn.ModuleList(
            LegoBrick(
                size,
                patch,
                layers,
                in_channels,
                (in_channels if index == 0 else 2 * in_channels) + 2,
                width,
                num_attention_heads,
                attention_head_dim,
            )
            for index, (size, patch, layers) in enumerate(zip(brick_sizes, patch_sizes, num_layers, strict=True))
        )
        shift_frequencies(self, freq_shift)

    @classmethod
    def named(cls, name: str, **changes: Any) -> LegoTransformer2DModel:
        """An untrained model of a published size: "S-PG-64", "XL-U-32". Raises: UnknownNameError for no such size."""
        return cls(**{**SIZES[name], **changes})

    def initialise(self) -> LegoTransformer2DModel:
        """Weights to train from: Xavier matrices, and bricks that answer nothing yet."""
        for name, weight in self.named_parameters():
            if "embedding_table" in name or ("timestep_embedder" in name and weight.ndim == 2):
                nn.init.normal_(weight, std=0.02)
            elif "norm1.linear" in name or "proj_out" in name or name.endswith("bias"):
                nn.init.zeros_(weight)
            else:
                nn.init.xavier_uniform_(weight.view(weight.shape[0], -1))
        return self

    def forward(
        self,
        hidden_states: torch.Tensor,
        timestep: torch.Tensor,
        class_labels: torch.Tensor | None = None,
        overlap: int = 0,
        shift: tuple[int, int] = (0, 0),
        return_dict: bool = True,
    ) -> Any:
        """The answer of the last brick.

        Args:
            hidden_states: the noised picture times c_in, (B, C, Y, X), no side smaller than the largest brick.
            timestep: c_noise, one for all or one a picture.
            class_labels: (B,); none: no class.
            overlap: pixels that windows of an image brick share on a picture larger than in training.
            shift: pixels by which those windows are moved.
        """
        answer = self.answers(hidden_states, timestep, class_labels, overlap, shift)[-1]
        return Transformer2DModelOutput(sample=answer) if return_dict else (answer,)

    def answers(
        self,
        hidden_states: torch.Tensor,
        timestep: torch.Tensor,
        class_labels: torch.Tensor | None = None,
        overlap: int = 0,
        shift: tuple[int, int] = (0, 0),
    ) -> list[torch.Tensor]:
        """What each brick answers, for the loss; arguments as those of `forward`."""
        batch, _, *size = hidden_states.shape
        if class_labels is None:
            class_labels = torch.full((batch,), self.config["num_embeds_ada_norm"], device=hidden_states.device)
        condition = self.condition(timestep.expand(batch), class_labels, hidden_dtype=hidden_states.dtype)
        places = coordinates(hidden_states)
        sample = torch.cat([hidden_states, places.flip(1) if self.config["down_first"] else places], 1)
        answer, answers = torch.zeros_like(hidden_states), []
        larger = max(size) > self.config["sample_size"]
        for brick, side in zip(self.bricks, self.config["brick_sizes"], strict=True):
            shared = overlap if larger and side == self.config["sample_size"] else 0
            answer = brick(answer, sample, condition, shared, shift if larger else (0, 0))
            answers.append(answer)
        return answers


def coordinates(picture_BCYX: torch.Tensor) -> torch.Tensor:
    """Where each pixel of a picture lies in it, across and down, -1 to 1: (B, 2, Y, X)."""
    batch, _, *size = picture_BCYX.shape
    down, across = (torch.linspace(-1, 1, n, device=picture_BCYX.device, dtype=picture_BCYX.dtype) for n in size)
    return torch.stack(torch.meshgrid(across, down, indexing="xy")).expand(batch, -1, -1, -1)
