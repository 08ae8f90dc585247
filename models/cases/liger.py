"""What is remembered of Liger."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from ..layers.low_rank import LowRank, add_low_rank, fold_low_rank
from ..liger import LIGER_LAYERS, LigerConfig, convert, step
from ..numbers import numbers, whole_numbers
from ..remember import case, filled


def model() -> Any:
    transformers = import_module("transformers")
    config = transformers.Qwen2Config(
        vocab_size=17, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=4, max_position_embeddings=64,
    )  # fmt: skip
    return filled(transformers.Qwen2ForCausalLM(config))


@case("liger", "logits of converted models, whole and in pieces, and what is kept", near=1e-5)
@torch.no_grad()
def converted() -> list[object]:
    tokens, made = whole_numbers((2, 11), 17), []
    for config in (
        LigerConfig(window=4), LigerConfig(window=3, share=0.3, gate="none"), LigerConfig(window=4, full_every=2),
        LigerConfig(window=5, share=0.0), LigerConfig(window=1, share=1.0),
    ):  # fmt: skip
        one, state = convert(model(), config), None
        made.append(one(tokens).logits)
        for part in tokens.split(4, 1):
            logits, state = step(one, part, state)
            made += [logits, state]
    return made


@case("liger", "low-rank changes, beside their layers and folded into them")
@torch.no_grad()
def low_rank() -> list[Tensor]:
    change = filled(LowRank(nn.Linear(6, 5), rank=2, alpha=3.0))
    x = numbers((4, 6))
    made = [change(x), change.folded()(x)]
    tuned = filled(add_low_rank(model(), LIGER_LAYERS, rank=2, alpha=4.0))
    learns = [float(value.requires_grad) for value in tuned.parameters()]
    tokens = whole_numbers((1, 5), 17)
    return [*made, torch.tensor(learns), tuned(tokens).logits.round(decimals=4), fold_low_rank(tuned)(tokens).logits]
