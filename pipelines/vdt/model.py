"""The transformer of VDT: a DiT in which every block first looks along time, then within each frame.

Legend: B batch, C channels, T frames, Y X pixels, N tokens of a frame, D width.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from diffusers import ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import PatchEmbed, get_1d_sincos_pos_embed_from_grid
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from torch import nn
from torch.nn import functional as F

from ...errors import ConfigError
from ..boxes import BoxAttention, Three
from ..published import shift_frequencies

SHARED_WITH_DIT = (
    "num_attention_heads",
    "attention_head_dim",
    "in_channels",
    "out_channels",
    "num_layers",
    "sample_size",
    "patch_size",
    "activation_fn",
    "num_embeds_ada_norm",
    "norm_eps",
)
"""Settings that mean the same in diffusers' DiTTransformer2DModel."""


class VDTBlock(BasicTransformerBlock):
    """A DiT block behind attention over time, which adds nothing before it is trained."""

    def __init__(self, width: int, heads: int, head_width: int, **settings: Any) -> None:
        super().__init__(
            width, heads, head_width, attention_bias=True, norm_type="ada_norm_zero",
            norm_elementwise_affine=False, **settings,
        )  # fmt: skip
        within_frames: Any = BoxAttention((1, 0, 0))
        over_time: Any = BoxAttention((0, 1, 1))
        self.attn1.set_processor(within_frames)
        self.temporal_norm = nn.LayerNorm(width)
        self.temporal_attention = Attention(
            query_dim=width, heads=heads, dim_head=head_width, bias=True, processor=over_time
        )
        out: Any = self.temporal_attention.to_out
        nn.init.zeros_(out[0].weight)
        nn.init.zeros_(out[0].bias)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        hidden_states: torch.Tensor,
        timestep: torch.Tensor,
        class_labels: torch.Tensor,
        positions: torch.Tensor,
        grid: Three,
    ) -> torch.Tensor:
        seen = self.temporal_norm(hidden_states) + positions
        hidden_states = hidden_states + self.temporal_attention(seen, grid=grid)
        rest: dict[str, Any] = {"timestep": timestep, "class_labels": class_labels}
        return super().forward(hidden_states, cross_attention_kwargs={"grid": grid}, **rest)


class VDTTransformer3DModel(ModelMixin, ConfigMixin):
    """Sees the noise (or what its scheduler asks for) in clips of any length, some of whose pixels may be known.

    What is known comes in clean beside what is noised, as one clip; see `outpace.pipelines.vdt.masks`.

    Source: Lu et al., "VDT: General-purpose Video Diffusion Transformers via Mask Modeling", ICLR 2024,
    arXiv:2305.13311, section 3.
    Differs from the paper: places in time are told to the attention over time alone, and that attention starts at zero,
    so that a VDT made `from_image` is the image model frame by frame until it is trained, at any number of frames.

    The authors' weights want `norm_eps=1e-6, freq_shift=0.0, places_in_stream=True`, and are taken by
    `outpace.models.load_published`; their attention over time ends in two matrices, which are multiplied.

    Shapes: (B, C, T, Y, X) in and out.

    Args:
        freq_shift: of the frequencies that times are told by; 1 as in diffusers' DiT, 0 in the authors' code.
        places_in_stream: places in time are added once to what goes through all blocks, as in the authors' code.
    """

    _no_split_modules: ClassVar[list[str]] = ["VDTBlock"]
    _repeated_blocks: ClassVar[list[str]] = ["VDTBlock"]

    @register_to_config
    def __init__(
        self,
        num_attention_heads: int = 6,
        attention_head_dim: int = 64,
        in_channels: int = 4,
        out_channels: int | None = None,
        num_layers: int = 12,
        sample_size: int = 32,
        patch_size: int = 2,
        num_frames: int = 16,
        activation_fn: str = "gelu-approximate",
        num_embeds_ada_norm: int = 1,
        norm_eps: float = 1e-5,
        freq_shift: float = 1.0,
        places_in_stream: bool = False,
    ) -> None:
        super().__init__()
        if sample_size % patch_size:
            raise ConfigError(f"frames of {sample_size} pixels do not divide into patches of {patch_size}")
        width = num_attention_heads * attention_head_dim
        self.out_channels = in_channels if out_channels is None else out_channels
        self.pos_embed = PatchEmbed(sample_size, sample_size, patch_size, in_channels, width)
        self.transformer_blocks = nn.ModuleList(
            VDTBlock(
                width,
                num_attention_heads,
                attention_head_dim,
                activation_fn=activation_fn,
                num_embeds_ada_norm=num_embeds_ada_norm,
                norm_eps=norm_eps,
            )
            for _ in range(num_layers)
        )
        self.norm_out = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.proj_out_1 = nn.Linear(width, 2 * width)
        self.proj_out_2 = nn.Linear(width, patch_size**2 * self.out_channels)
        shift_frequencies(self, freq_shift)

    @classmethod
    def from_image(cls, image_model: Any, *, num_frames: int = 16) -> VDTTransformer3DModel:
        """A VDT with the weights of diffusers' DiTTransformer2DModel: its outputs, frame by frame, until it is trained.

        Raises: ConfigError where `image_model` has other weights than a DiT.
        """
        config = image_model.config
        model = cls(num_frames=num_frames, **{name: config[name] for name in SHARED_WITH_DIT if name in config})
        missing, unknown = model.load_state_dict(image_model.state_dict(), strict=False)
        strange = [name for name in missing if ".temporal_" not in name] + list(unknown)
        if strange:
            raise ConfigError(
                f"{type(image_model).__name__} is no image DiT that a VDT can start from; it disagrees on {strange[0]}"
            )
        dtype = next(image_model.parameters()).dtype
        return model if dtype == model.dtype else model.to(dtype)

    def forward(
        self,
        hidden_states: torch.Tensor,
        timestep: torch.Tensor,
        class_labels: torch.Tensor | None = None,
        return_dict: bool = True,
    ) -> Any:
        """What the model sees in `hidden_states` (B, C, T, Y, X) at `timestep` (one, or one a clip)."""
        config: Any = self.config
        blocks: Any = self.transformer_blocks
        patch = config.patch_size
        batch, _, frames, *pixels = hidden_states.shape
        if pixels[0] % patch or pixels[1] % patch:
            raise ConfigError(f"frames of {pixels[0]} x {pixels[1]} pixels do not divide into patches of {patch}")
        grid = (frames, pixels[0] // patch, pixels[1] // patch)
        timestep = timestep.expand(batch)
        if class_labels is None:
            class_labels = torch.zeros(batch, dtype=torch.long, device=hidden_states.device)
        tokens = self.pos_embed(hidden_states.transpose(1, 2).flatten(0, 1)).unflatten(0, (batch, frames)).flatten(1, 2)
        positions = get_1d_sincos_pos_embed_from_grid(
            tokens.shape[-1], torch.arange(frames, device=tokens.device), output_type="pt"
        )
        positions = positions.to(tokens.dtype).repeat_interleave(grid[1] * grid[2], 0)
        if config.places_in_stream:
            tokens, positions = tokens + positions, torch.zeros_like(positions)
        for block in blocks:
            tokens = block(tokens, timestep=timestep, class_labels=class_labels, positions=positions, grid=grid)
        condition = blocks[0].norm1.emb(timestep, class_labels, hidden_dtype=tokens.dtype)
        shift, scale = self.proj_out_1(F.silu(condition)).chunk(2, 1)
        tokens = self.proj_out_2(self.norm_out(tokens) * (1 + scale[:, None]) + shift[:, None])
        parts = tokens.view(batch, *grid, patch, patch, self.out_channels)
        sample = parts.permute(0, 6, 1, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)
        return Transformer2DModelOutput(sample=sample) if return_dict else (sample,)
