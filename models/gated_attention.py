"""Gated attention: a sigmoid gate on what each head found, from the token that asked.

The layer is `layers.attention.SoftmaxAttention` with gate "channel" or "head"; the model is the hybrid one with full
attention in every layer.

Source: Qiu et al., 2025, arXiv:2505.06708.
"""

from __future__ import annotations

from .companion import MODELS, Companion
from .hybrid import HybridConfig, HybridLanguageModel
from .layers.attention import AttentionConfig
from .numbers import tokens_for

GATED_ATTENTION = MODELS.add(
    "gated_attention",
    Companion(
        title="Gated Attention for Large Language Models: Non-linearity, Sparsity, and Attention-Sink-Free",
        source="Qiu et al., 2025, arXiv:2505.06708",
        summary="a language model whose attention outputs pass a gate before the last matrix",
        build=HybridLanguageModel,
        sizes={},
        config=HybridConfig,
        toy=HybridConfig(
            layer_types=("full", "full"),
            width=16,
            vocabulary=32,
            attention=AttentionConfig(heads=4, key_heads=2, gate="channel", query_key_norm=True),
            hidden=24,
        ),
        example=tokens_for,
        done=(
            "the gate behind attention (G1), one a channel or one a head, from the normalised input",
            "parity with the gated attention of Qwen3-Next by copied weights",
        ),
        left_out=(
            "gates at the paper's four worse places, shared, additive and input-independent gates",
            "the models of 1.7B and 15B parameters, of which no configuration is given here",
        ),
        claim="at equal parameters, a gate behind attention lowers the loss",
        limits=(
            "a small language model has no attention sink to begin with, so that its going away cannot be shown here",
        ),
    ),
)
