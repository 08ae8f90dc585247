"""The transformer of DiT-3D: points to voxels, voxels to patches, DiT blocks, and back to points.

Legend: B clouds, N points, C channels, V voxels a side, G patches a side, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from diffusers import ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.embeddings import get_1d_sincos_pos_embed_from_grid
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from torch import nn
from torch.nn import functional as F

from ...errors import ConfigError
from ...registry import Registry
from ..boxes import BoxAttention, ReducedAttention
from ..published import shift_frequencies
from .voxel import devoxelize, voxel_places, voxelize

ATTENTIONS: Registry[Callable[[int, int], Any]] = Registry("attention of DiT-3D")
"""`make(width, side)` gives the attention processor of the blocks that are not global."""

ATTENTIONS.add("global", lambda width, side: BoxAttention((0, 0, 0)))
ATTENTIONS.add("window", lambda width, side: BoxAttention((side, side, side)))
ATTENTIONS.add("sr", ReducedAttention)


class DiT3DTransformerModel(ModelMixin, ConfigMixin):
    """Sees the noise (or what its scheduler asks for) of each point of a cloud, whatever the order of the points.

    Source: Mo et al., "DiT-3D: Exploring Plain Diffusion Transformers for 3D Shape Generation", NeurIPS 2023,
    arXiv:2307.01831, section 3.
    Differs from the paper: it describes its window attention as a reduction of keys and values (equation 3), its code
    means windows; here the first is "sr", the second "window". Widths need not divide by 6.

    Args:
        voxel_size: voxels a side; patch_size: voxels a side of a token.
        attention: "global"; "window": a token sees the `window_size`^3 tokens of its window; "sr": it sees the whole
            volume, each window summed up in one key and value.
        window_blocks: the blocks that "window" and "sr" are for; None takes every third, from the first.
        num_embeds_ada_norm: classes; the class of that number means any.
        freq_shift: of the frequencies that times are told by; 1 as in diffusers' DiT, 0 in the authors' code, whose
            weights want `norm_eps=1e-6` and `activation_fn="gelu"`, too (`outpace.models.load_published`). They are of
            attention "global": the authors' windows are never switched on as released, and would mix clouds of a batch.

    Shapes: (B, N, C) in and out.
    """

    _no_split_modules: ClassVar[list[str]] = ["BasicTransformerBlock"]
    _repeated_blocks: ClassVar[list[str]] = ["BasicTransformerBlock"]

    @register_to_config
    def __init__(
        self,
        num_attention_heads: int = 6,
        attention_head_dim: int = 64,
        in_channels: int = 3,
        num_layers: int = 12,
        voxel_size: int = 32,
        patch_size: int = 4,
        num_embeds_ada_norm: int = 1,
        attention: str = "global",
        window_size: int = 4,
        window_blocks: Sequence[int] | None = None,
        activation_fn: str = "gelu-approximate",
        norm_eps: float = 1e-5,
        freq_shift: float = 1.0,
    ) -> None:
        super().__init__()
        if voxel_size % patch_size:
            raise ConfigError(f"{voxel_size} voxels a side do not divide into patches of {patch_size}")
        width, self.side = num_attention_heads * attention_head_dim, voxel_size // patch_size
        if width % 2:
            raise ConfigError(f"a width of {width} is odd; places are told in pairs of sine and cosine")
        if window_size < 1 or (attention == "sr" and self.side % window_size):
            raise ConfigError(
                f"windows of {window_size} tokens a side do not divide the {self.side} of this volume; sr needs that"
            )
        chosen = range(0, num_layers, 3) if window_blocks is None else window_blocks
        strange = [index for index in chosen if not 0 <= index < num_layers]
        if strange:
            raise ConfigError(f"window_blocks names block {strange[0]}; there are blocks 0 to {num_layers - 1}")
        make = ATTENTIONS[attention]
        self.proj_in = nn.Conv3d(in_channels, width, patch_size, stride=patch_size)
        self.register_buffer("positions", volume_positions(width, self.side), persistent=False)
        self.transformer_blocks = nn.ModuleList(
            BasicTransformerBlock(
                width,
                num_attention_heads,
                attention_head_dim,
                activation_fn=activation_fn,
                num_embeds_ada_norm=num_embeds_ada_norm,
                attention_bias=True,
                norm_type="ada_norm_zero",
                norm_elementwise_affine=False,
                norm_eps=norm_eps,
            )
            for _ in range(num_layers)
        )
        blocks: Any = self.transformer_blocks
        for index, block in enumerate(blocks):
            inside = make if index in chosen else ATTENTIONS["global"]
            block.attn1.set_processor(inside(width, window_size))
        self.norm_out = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.proj_out_1 = nn.Linear(width, 2 * width)
        self.proj_out_2 = nn.Linear(width, patch_size**3 * in_channels)
        shift_frequencies(self, freq_shift)

    @classmethod
    def from_image(cls, image_model: Any, **settings: Any) -> DiT3DTransformerModel:
        """A model whose blocks are those of diffusers' DiTTransformer2DModel; what comes before and behind is new.

        Class embeddings are taken over only where `num_embeds_ada_norm` is that of the image model.

        Args:
            settings: of this model; width, heads, blocks and activation are the image model's.

        Raises: ConfigError where `image_model` has no DiT blocks.
        """
        config = image_model.config
        shared = ("num_attention_heads", "attention_head_dim", "num_layers", "activation_fn", "norm_eps")
        model = cls(**{name: config[name] for name in shared if name in config}, **settings)
        own, given = model.state_dict(), image_model.state_dict()
        blocks = [name for name in own if name.startswith("transformer_blocks.") and ".processor." not in name]
        strange = [
            name
            for name in blocks
            if "class_embedder" not in name and (name not in given or given[name].shape != own[name].shape)
        ]
        if strange:
            raise ConfigError(
                f"{type(image_model).__name__} has no blocks that a DiT-3D can take over; it disagrees on {strange[0]}"
            )
        taken = {name: given[name] for name in blocks if name in given and given[name].shape == own[name].shape}
        model.load_state_dict(taken, strict=False)
        dtype = next(image_model.parameters()).dtype
        return model if dtype == model.dtype else model.to(dtype)

    def forward(
        self,
        hidden_states: torch.Tensor,
        timestep: torch.Tensor,
        class_labels: torch.Tensor | None = None,
        return_dict: bool = True,
    ) -> Any:
        """What the model sees for each point of `hidden_states` (B, N, C) at `timestep` (one, or one a cloud)."""
        config: Any = self.config
        blocks: Any = self.transformer_blocks
        batch, side, patch = len(hidden_states), self.side, config.patch_size
        if hidden_states.ndim != 3 or hidden_states.shape[2] != config.in_channels:
            raise ConfigError(
                f"clouds of shape {list(hidden_states.shape)}; expected (clouds, points, {config.in_channels})"
            )
        timestep = timestep.expand(batch)
        if class_labels is None:
            class_labels = torch.zeros(batch, dtype=torch.long, device=hidden_states.device)
        places = voxel_places(hidden_states[..., :3], config.voxel_size)
        volume = voxelize(hidden_states, places, config.voxel_size)
        tokens = self.proj_in(volume).flatten(2).transpose(1, 2)
        tokens = tokens + self.positions.to(tokens.dtype)
        grid = {"grid": (side, side, side)}
        for block in blocks:
            tokens = block(tokens, timestep=timestep, class_labels=class_labels, cross_attention_kwargs=grid)
        condition = blocks[0].norm1.emb(timestep, class_labels, hidden_dtype=tokens.dtype)
        shift, scale = self.proj_out_1(F.silu(condition)).chunk(2, 1)
        tokens = self.proj_out_2(self.norm_out(tokens) * (1 + scale[:, None]) + shift[:, None])
        parts = tokens.view(batch, side, side, side, patch, patch, patch, -1).permute(0, 7, 1, 4, 2, 5, 3, 6)
        sample = devoxelize(parts.flatten(6, 7).flatten(4, 5).flatten(2, 3), places)
        return Transformer2DModelOutput(sample=sample) if return_dict else (sample,)


def volume_positions(width: int, side: int) -> torch.Tensor:
    """Sines and cosines of each token's place, a third of the width for each axis: (1, G^3, D)."""
    pairs = width // 2
    places = torch.cartesian_prod(*[torch.arange(side)] * 3)
    thirds = [2 * (pairs // 3 + (axis < pairs % 3)) for axis in range(3)]
    parts = [
        get_1d_sincos_pos_embed_from_grid(third, places[:, axis], output_type="pt") for axis, third in enumerate(thirds)
    ]
    return torch.cat(parts, 1).float()[None]
