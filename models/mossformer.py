"""MossFormer: voices out of a mixture, by gated attention among neighbours and over the whole recording at once.

Source: Zhao and Ma, 2023, arXiv:2302.11824.
Shapes: B batch, S speakers, L samples, N frames, D width, Q width of keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ..kernels.attention.local_global import local_global_attention
from .companion import MODELS, Companion, Size, check_divides, check_sizes
from .numbers import numbers


@dataclass(frozen=True, kw_only=True, slots=True)
class MossformerConfig:
    """Sizes of a MossFormer; the defaults are the paper's large one."""

    width: int = 512
    """Channels of a frame."""
    blocks: int = 24
    """Of the network that makes masks."""
    speakers: int = 2
    """Voices that come out."""
    window: int = 16
    """Samples of a frame; a frame starts every half window."""
    group: int = 256
    """Frames that attend to each other with a weight for each pair."""
    key_width: int = 128
    """Of queries and keys, of which the first 32 are turned by their position."""
    filter: int = 17
    """Frames that the convolutions of a block see; odd."""
    over_all: bool = True
    """Whether blocks also attend to all frames, at linear cost; the paper's do."""
    dropout: float = 0.1
    """Share of numbers dropped in training."""

    def __post_init__(self) -> None:
        check_sizes(self)
        check_divides("width over halves", self.width, 2)
        check_divides("samples of a window over halves", self.window, 2)
        check_divides("width of keys over pairs", self.key_width, 2)
        if self.filter % 2 == 0 or not self.dropout < 1:
            raise ConfigError(
                f"a MossFormer has an odd filter and a dropout in [0, 1), not {self.filter} and {self.dropout}"
            )


class ScaleNorm(nn.Module):
    """Tokens of one length, which is learned."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.length = nn.Parameter(torch.ones(1))
        self.scale = width**-0.5

    def forward(self, x: Tensor) -> Tensor:
        return x / (x.norm(dim=-1, keepdim=True) * self.scale).clamp(min=1e-5) * self.length


class ConvolvedLinear(nn.Module):
    """Norm, matrix, SiLU, then each channel with its own neighbourhood in time added."""

    def __init__(self, norm: nn.Module, width: int, out: int, filter: int, dropout: float) -> None:
        super().__init__()
        self.norm, self.linear, self.drop = norm, nn.Linear(width, out), nn.Dropout(dropout)
        self.neighbours = nn.Conv1d(out, out, filter, padding=filter // 2, groups=out, bias=False)

    def forward(self, x_BND: Tensor) -> Tensor:
        y = F.silu(self.linear(self.norm(x_BND)))
        return self.drop(y + self.neighbours(y.mT).mT)


class GatedAttention(nn.Module):
    """A block: two sets of values under the same attention, each gates what came of the other."""

    def __init__(self, config: MossformerConfig, frequencies: nn.Parameter) -> None:
        super().__init__()
        width, keys = config.width, config.key_width
        self.group, self.over_all, self.frequencies = config.group, config.over_all, frequencies

        def convolved(inside: int, out: int) -> ConvolvedLinear:
            return ConvolvedLinear(ScaleNorm(inside), inside, out, config.filter, config.dropout)

        self.values, self.key = convolved(width, 4 * width), convolved(width, keys)
        self.out = convolved(2 * width, width)
        self.gains = nn.Parameter(torch.randn(4, keys) * 0.02)
        self.offsets = nn.Parameter(torch.zeros(4, keys))

    def forward(self, x_BND: Tensor) -> Tensor:
        late, now = x_BND.chunk(2, -1)
        x = torch.cat([F.pad(late, (0, 0, 1, -1)), now], -1)  # half of the channels are one frame late
        both = self.values(x)
        turned = rotated(self.key(x)[:, None] * self.gains[:, None] + self.offsets[:, None], self.frequencies)
        q, q_global, k, k_global = turned.unbind(1)
        state = {"q_global": q_global, "k_global": k_global} if self.over_all else {}
        attended_v, attended_u = local_global_attention(q, k, both, group=self.group, **state).chunk(2, -1)
        v, u = both.chunk(2, -1)
        return x_BND + self.out(attended_u * v * (attended_v * u).sigmoid())


def rotated(x: Tensor, frequencies: Tensor) -> Tensor:
    """(..., N, Q) with its first numbers, two for each frequency, turned pair by pair by their position."""
    angles = torch.arange(x.shape[-2], device=x.device)[:, None] * frequencies
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    turned, kept = x.split([2 * len(frequencies), x.shape[-1] - 2 * len(frequencies)], -1)
    a, b = turned.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.cat([torch.stack([a * cos - b * sin, b * cos + a * sin], -1).flatten(-2), kept], -1)


class Mossformer(nn.Module):
    """Each speaker's samples (B, S, L) from a mixture (B, L).

    Args:
        config: its sizes.
        memory: makes what follows each block; nothing in MossFormer.

    >>> model = Mossformer(MossformerConfig(width=16, blocks=2, group=8, key_width=8))
    >>> model(torch.zeros(3, 100)).shape
    torch.Size([3, 2, 100])
    """

    def __init__(self, config: MossformerConfig, memory: Callable[[], nn.Module] = nn.Identity) -> None:
        super().__init__()
        self.config = config
        width, window = config.width, config.window
        pairs = min(32, config.key_width) // 2
        # a parameter that does not learn, one for all blocks: so it is held, and counted, in the published weights
        turns = 10_000.0 ** (-torch.arange(pairs, dtype=torch.float64) / pairs)
        frequencies = nn.Parameter(turns.to(torch.get_default_dtype()), requires_grad=False)
        self.encode = nn.Conv1d(1, width, window, window // 2, bias=False)
        self.norm, self.reduce = nn.GroupNorm(1, width, eps=1e-8), nn.Conv1d(width, width, 1, bias=False)
        self.position_scale = nn.Parameter(torch.ones(1))
        self.blocks = nn.Sequential(
            *(part for _ in range(config.blocks) for part in (GatedAttention(config, frequencies), memory()))
        )
        self.block_norm, self.skip_norm = nn.LayerNorm(width, eps=1e-6), nn.GroupNorm(1, width, eps=1e-8)
        self.activation, self.split = nn.PReLU(), nn.Conv1d(width, width * config.speakers, 1)
        self.out, self.out_gate = nn.Conv1d(width, width, 1), nn.Conv1d(width, width, 1)
        self.expand = nn.Conv1d(width, width, 1, bias=False)
        self.decode = nn.ConvTranspose1d(width, 1, window, window // 2, bias=False)

    def forward(self, mixture_BL: Tensor) -> Tensor:
        """(B, S, L), S the speakers in an order of the model's own.

        Differs from the published code: samples after the last whole frame are not lost.

        Raises: ConfigError: not (batch, samples).
        """
        if mixture_BL.ndim != 2 or not mixture_BL.numel():
            raise ConfigError(f"a mixture has the shape (batch, samples), not {tuple(mixture_BL.shape)}")
        batch, samples = mixture_BL.shape
        window = self.config.window
        missing = max(window - samples, -(samples - window) % (window // 2))
        frames_BDN = F.relu(self.encode(F.pad(mixture_BL, (0, missing))[:, None]))
        masked = self.masks(frames_BDN) * frames_BDN[:, None]
        return self.decode(masked.flatten(0, 1))[:, 0, :samples].unflatten(0, (batch, -1))

    def masks(self, frames_BDN: Tensor) -> Tensor:
        """(B, S, D, N), at least 0: what is left of each channel of each frame for a speaker."""
        x = self.reduce(self.norm(frames_BDN))
        x = x + self.position_scale * _positions(x.shape[2], x.shape[1], x).mT
        y = self.skip_norm(self.block_norm(self.blocks(x.mT)).mT) + x
        y = self.split(self.activation(y)).unflatten(1, (self.config.speakers, -1)).flatten(0, 1)
        y = self.expand(self.out(y).tanh() * self.out_gate(y).sigmoid())
        return y.relu().unflatten(0, (len(frames_BDN), -1))


def _positions(count: int, width: int, like: Tensor) -> Tensor:
    """(count, width): all sines, then all cosines."""
    places = torch.arange(count, device=like.device, dtype=torch.promote_types(like.dtype, torch.float32))
    frequencies = 10_000.0 ** (-torch.arange(0, width, 2, device=like.device, dtype=places.dtype) / width)
    angles = places[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], -1).to(like.dtype)


PUBLISHED = (
    (r"^(?:.*\.)?(?=(?:enc|mask_net|dec)\.)", ""),
    (r"^enc\.conv1d\.", "encode."),
    (r"^dec\.", "decode."),
    (r"^mask_net\.", ""),
    (r"^conv1d_encoder\.", "reduce."),
    (r"^pos_enc\.scale", "position_scale"),
    (r"^mdl\.intra_norm\.", "skip_norm."),
    (r"^mdl\.intra_mdl\.norm\.", "block_norm."),
    (r"^prelu\.", "activation."),
    (r"^conv1d_out\.", "split."),
    (r"^output\.0\.", "out."),
    (r"^output_gate\.0\.", "out_gate."),
    (r"^conv1_decoder\.", "expand."),
    (r"\.to_hidden\.", ".values."),
    (r"\.to_qk\.", ".key."),
    (r"\.to_out\.", ".out."),
    (r"\.qk_offset_scale\.gamma", ".gains"),
    (r"\.qk_offset_scale\.beta", ".offsets"),
    (r"\.rotary_pos_emb\.freqs", ".frequencies"),
    (r"\.mdl\.0\.g$", ".norm.length"),
    (r"\.mdl\.0\.", ".norm."),
    (r"\.mdl\.1\.", ".linear."),
    (r"\.mdl\.3\.sequential\.1\.conv\.", ".neighbours."),
    (r"\.conv1\.0\.", ".reduce."),
    (r"\.conv1\.1\.", ".activation."),
    (r"(?<=\d)\.conv2\.", ".expand."),
    (r"\.gated_fsmn\.fsmn\.linear\.", ".memory.linear."),
    (r"\.gated_fsmn\.fsmn\.project\.", ".memory.project."),
    (r"\.gated_fsmn\.fsmn\.conv\.conv(?=\d)", ".memory.filters."),
    (r"\.gated_fsmn\.fsmn\.conv\.norm(?=\d)", ".memory.norms."),
    (r"\.gated_fsmn\.fsmn\.conv\.prelu(?=\d)", ".memory.activations."),
    (r"\.gated_fsmn\.to_", "."),
)
"""Names of ClearerVoice's weights, part by part, as ours."""


def by_our_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of ClearerVoice's MossFormer or MossFormer2 (a `state_dict` of its `MossFormer`), as ours are named."""
    taken = {}
    for name, value in weights.items():
        if name.endswith("inv_freq"):  # computed
            continue
        for pattern, ours in PUBLISHED:
            name = re.sub(pattern, ours, name)
        # a block and what follows it lie in turn here; filters are counted from 0
        name = re.sub(
            r"^mdl\.intra_mdl\.mossformerM\.(layers|fsmn)\.(\d+)\.",
            lambda found: f"blocks.{2 * int(found[2]) + (found[1] == 'fsmn')}.",
            name,
        )
        name = re.sub(r"(filters|norms|activations)\.(\d)", lambda found: f"{found[1]}.{int(found[2]) - 1}", name)
        taken[name] = value
    return taken


def _size(parameters: int, said: str, width: int, blocks: int) -> Size:
    return Size(config=MossformerConfig(width=width, blocks=blocks), parameters=parameters, said=said)


MOSSFORMER = MODELS.add(
    "mossformer",
    Companion(
        title="MossFormer: Pushing the Performance Limit of Monaural Speech Separation using Gated Single-Head "
        "Transformer with Convolution-Augmented Joint Self-Attentions",
        source="Zhao and Ma, 2023, arXiv:2302.11824",
        summary="voices out of a mixture: gated attention among neighbours and over the whole recording at once",
        build=Mossformer,
        sizes={
            "large": _size(42_101_850, "42.1M", 512, 24),
            "medium": _size(25_195_357, "25.3M", 384, 25),
            "small": _size(10_808_151, "10.8M", 256, 23),
        },
        config=MossformerConfig,
        toy=MossformerConfig(width=16, blocks=2, group=8, key_width=8),
        example=lambda config: (numbers((2, 100), dtype=torch.float32),),
        done=(
            "the model with any number of speakers, samples and frames",
            "weights of ClearerVoice's own code (`outpace.models.load_published`)",
            "the loss: SI-SDR in the best order of speakers (`layers.separation`)",
        ),
        left_out=(
            "training on WSJ0-2mix, WHAM! and Libri2Mix, with dynamic mixing",
            "dropout of attention weights, masks of padded recordings, the output without masks for WHAMR!",
        ),
        claim="attention over the whole recording beside attention among neighbours separates better than neighbours "
        "alone",
        limits=(
            "a shorter group or a longer recording changes the scale of attention: scores are over the group's size, "
            "the state over the number of frames",
            "that the small model has 23 blocks is inferred from its number of parameters",
        ),
    ),
)
