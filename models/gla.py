"""Gated linear attention transformers: the hybrid model with gated linear attention in every layer.

Source: Yang et al., 2023, arXiv:2312.06635.
"""

from __future__ import annotations

from .companion import MODELS, Companion, Size
from .hybrid import HybridConfig, HybridLanguageModel
from .numbers import tokens_for

GLA = MODELS.add(
    "gla",
    Companion(
        title="Gated Linear Attention Transformers with Hardware-Efficient Training",
        source="Yang, Wang, Shen, Panda, Kim, 2023, arXiv:2312.06635",
        summary="a language model whose attention is a state that every channel forgets at its own rate",
        build=HybridLanguageModel,
        sizes={
            "340M": Size(config=HybridConfig(layer_types=("gla",) * 24), parameters=341_707_776, said="340M"),
            "1.3B": Size(
                config=HybridConfig(layer_types=("gla",) * 24, width=2048), parameters=1_299_978_240, said="1.3B"
            ),
        },
        config=HybridConfig,
        toy=HybridConfig(layer_types=("gla", "gla"), width=16, heads=2, vocabulary=32, hidden=24),
        example=tokens_for,
        done=(
            "weights of flash-linear-attention (`outpace.models.load_published`): create with norm_eps=1e-6, and "
            "tied=False where the head is its own",
            "the layer and the model, decoding included",
            "training in chunks, finite under any gate: outpace.kernels.linear_attention",
            "a Triton kernel of the forward pass",
        ),
        left_out=("a Triton kernel of the backward pass", "the trained checkpoints and their benchmarks"),
        claim="attention with a gated state is linear in the length and beats softmax attention in time on long inputs",
        limits=(
            "a state of fixed size limits recall: with 16 pairs to remember, two narrow layers fall short of softmax",
            "embeddings are tied, which gives the sizes that the paper names; it does not say whether they are",
            "norm and output gate are those of flash-linear-attention: RMS with weights, no bias",
        ),
    ),
)
