"""Liger: a trained transformers model (Llama, Mistral, Qwen2) whose attention becomes a gated state and a window.

No parameter is added: the state forgets by a gate that is read off the keys. Tuning a low-rank change of the query, key
and value matrices (`layers.low_rank.add_low_rank(model, LIGER_LAYERS)`) brings most of the loss back.

Source: Lan et al., 2025, arXiv:2503.01496.
Shapes: B batch, T tokens, H query heads, G key heads, W width of a head, M keys that are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ..kernels.attention import attend
from ..kernels.linear_attention import gated_linear_attention
from .companion import MODELS, Companion, check_sizes

LIGER_LAYERS = ("q_proj", "k_proj", "v_proj")
"""The layers that the paper tunes."""
TEMPERATURE = 16.0
GATES = ("keys", "none")


@dataclass(frozen=True, kw_only=True, slots=True)
class LigerConfig:
    """What attention becomes; the defaults are the paper's."""

    window: int = 64
    """Keys that the softmax half sees, its own the last."""
    share: float = 0.5
    """Of the gated state in the output, 0 to 1; the window has the rest."""
    gate: str = "keys"
    """What the state forgets by: "keys", or "none" to keep everything, for ablations."""
    full_every: int | None = None
    """Every how many layers one keeps its attention as it was; none does where None."""

    def __post_init__(self) -> None:
        check_sizes(self)
        if not 0 <= self.share <= 1:
            raise ConfigError(f"share of Liger's state must be in [0, 1], not {self.share}")
        if self.gate not in GATES:
            raise ConfigError(f"gate of Liger must be one of {', '.join(GATES)}, not '{self.gate}'")


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerState:
    """What a layer keeps of the tokens it has read."""

    keys: Tensor
    """(B, G, M, W), turned by their positions."""
    values: Tensor
    """(B, G, M, W)."""
    memory: Tensor | None
    """(B, H, W, W) of the gated state; None where it has no share."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LigerState:
    """What a model keeps: as much however many tokens there were, but for layers that stayed as they were."""

    position: int
    """Tokens read."""
    layers: tuple[LayerState, ...]
    """One each."""


class LigerAttention(nn.Module):
    """Stands where the model's attention stood, with its matrices."""

    def __init__(self, attention: Any, config: LigerConfig, *, full: bool) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = attention.q_proj, attention.k_proj, attention.v_proj
        self.o_proj, self.head_width, self.place = attention.o_proj, attention.head_dim, attention.layer_idx
        self.window, self.share = (None, 0.0) if full else (config.window, config.share)
        self.gate = config.gate

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None = None,
        past_key_values: object = None,
        liger: dict[int, LayerState] | None = None,
        **_others: object,
    ) -> tuple[Tensor, None]:
        """As transformers calls it; `liger` has the layers' states, which are replaced by those after these tokens.

        Raises: ConfigError: padded batches, or a cache of transformers.
        """
        if attention_mask is not None:
            raise ConfigError("a Liger model reads texts of one length, without padding or a mask")
        if past_key_values is not None:
            raise ConfigError(
                "a Liger model does not fill transformers' caches; decode with liger.step or use_cache=False"
            )
        q, k, v = (
            part(hidden_states).unflatten(-1, (-1, self.head_width)).transpose(1, 2)
            for part in (self.q_proj, self.k_proj, self.v_proj)
        )
        state = None if liger is None else liger.get(self.place)
        cos, sin = (part[:, None].to(q.dtype) for part in position_embeddings)
        keys, values = turned(k, cos, sin), v
        if state is not None:
            keys, values = torch.cat([state.keys, keys], 2), torch.cat([state.values, values], 2)
        out, memory = (
            (1 - self.share) * attend(turned(q, cos, sin), keys, values, causal=True, window=self.window),
            None,
        )
        if self.share:
            remembered, memory = self.recall(q, k, v, None if state is None else state.memory)
            out = out + self.share * remembered
        if liger is not None:
            kept = keys.shape[2] if self.window is None else self.window - 1
            first = max(0, keys.shape[2] - kept)
            liger[self.place] = LayerState(keys=keys[:, :, first:], values=values[:, :, first:], memory=memory)
        return self.o_proj(out.transpose(1, 2).flatten(-2)), None

    def recall(self, q: Tensor, k: Tensor, v: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor]:
        """What the gated state gives, (B, H, T, W), and the state: queries and keys by softmax over their channels."""
        log_decay = F.logsigmoid(k) / TEMPERATURE if self.gate == "keys" else torch.zeros_like(k)
        repeats = q.shape[1] // k.shape[1]
        k, v, log_decay = (part.repeat_interleave(repeats, 1) for part in (k.softmax(-1), v, log_decay))
        return gated_linear_attention(
            q.softmax(-1), k, v, log_decay, scale=1.0, initial_state=memory, return_state=True
        )


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """By the positions, the halves being the pairs, as all these models have it."""
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


def convert(model: Any, config: LigerConfig) -> Any:
    """Replace the attention of a causal language model of transformers, in place; its weights stay and none is added.

    `model(tokens)` and `model.generate(tokens)` work as before, without a cache; `step` decodes in constant memory.

    Raises: ConfigError: attention of another kind than Llama's, Mistral's and Qwen2's.
    """
    layers = getattr(getattr(model, "model", None), "layers", None)
    if not isinstance(layers, nn.ModuleList):
        raise ConfigError(f"Liger takes a causal language model of transformers, not {type(model).__name__}")
    for layer in layers:
        attention = getattr(layer, "self_attn", None)
        parts = (*LIGER_LAYERS, "o_proj", "head_dim", "layer_idx")
        if not all(hasattr(attention, part) for part in parts) or hasattr(attention, "q_norm"):
            raise ConfigError(f"Liger takes the attention of Llama, Mistral and Qwen2, not {type(attention).__name__}")
    if "sliding_attention" in (getattr(model.config, "layer_types", None) or ()):
        raise ConfigError("Liger takes models with full attention; load this one with use_sliding_window=False")
    for i, layer in enumerate(layers):
        full = config.full_every is not None and (i + 1) % config.full_every == 0
        layer.self_attn = LigerAttention(layer.self_attn, config, full=full)
    model.set_attn_implementation("sdpa")  # the one that makes no mask where none is needed
    model.config.sliding_window = None
    model.config.use_cache = model.generation_config.use_cache = False
    return model


def step(model: Any, tokens_BT: Tensor, state: LigerState | None) -> tuple[Tensor, LigerState]:
    """The logits (B, T, V) of some more tokens after those that made `state`, and the state after them.

    Args:
        model: made by `convert`.
    """
    start = 0 if state is None else state.position
    end = start + tokens_BT.shape[1]
    layers = {} if state is None else dict(enumerate(state.layers))
    places = torch.arange(start, end, device=tokens_BT.device).expand(len(tokens_BT), -1)
    logits = model(tokens_BT, position_ids=places, use_cache=False, liger=layers).logits
    return logits, LigerState(position=end, layers=tuple(layers[i] for i in sorted(layers)))


LIGER = MODELS.add(
    "liger",
    Companion(
        title="Liger: Linearizing Large Language Models to Gated Recurrent Structures",
        source="Lan et al., 2025, arXiv:2503.01496",
        summary="a trained Llama, Mistral or Qwen2 turned into a gated state and a window, without new parameters",
        use="outpace.models.liger.convert(model, LigerConfig()) changes a model of transformers",
        done=(
            "conversion to gated linear attention and a sliding window, with layers left as they were where asked",
            "low-rank tuning of queries, keys and values, folded in afterwards",
            "decoding with a state of constant size: the window's keys and the gated state",
        ),
        left_out=(
            "the HGRN2 and GSA forms; Qwen3, whose queries and keys have norms",
            "padded batches, and filling the caches of transformers",
            "the 1B and 8B models and their benchmarks",
        ),
        claim="after low-rank tuning, gate and window together lose less than the state without either of them",
        limits=(
            "with the published code, decoding sees one token in the window; here it is the same as reading at once",
            "in the paper, Llama-3-8B falls from 65.3 to 43.4 on MMLU when converted",
        ),
    ),
)
