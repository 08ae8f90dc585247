"""Liger in small: a Llama that learnt bytes, converted and tuned."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..layers.low_rank import add_low_rank
from ..liger import LIGER_LAYERS, LigerConfig, convert
from .data import BYTES, python_source, windows
from .fit import fit
from .trial import Trial

STEPS, TUNING, WIDTH, LAYERS, WINDOW = 300, 80, 64, 3, 8


def loss_of(model: Any, pieces: Tensor) -> Tensor:
    """Nats a byte."""
    return F.cross_entropy(model(pieces[:, :-1]).logits.flatten(0, 1), pieces[:, 1:].flatten())


def learn(model: Any, seed: int, steps: int, rate: float) -> Any:
    """On windows of 64 bytes."""
    generator = torch.Generator().manual_seed(seed)
    fit(model, lambda _step: loss_of(model, windows(python_source()[0], 16, 64, generator)), steps=steps, rate=rate)
    return model


@torch.no_grad()
def held_out(model: Any) -> float:
    """The loss on text that was not trained on."""
    return float(loss_of(model, windows(python_source()[1], 128, 64, torch.Generator().manual_seed(0))))


@functools.cache
def trained(seed: int) -> Any:
    """The model that all arms of a seed convert."""
    transformers = import_module("transformers")
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=BYTES, hidden_size=WIDTH, intermediate_size=3 * WIDTH, num_hidden_layers=LAYERS,
        num_attention_heads=4, max_position_embeddings=64, tie_word_embeddings=True,
    )  # fmt: skip
    return learn(transformers.LlamaForCausalLM(config), seed, STEPS, 3e-3)


def arm(config: LigerConfig) -> Callable[[int], float]:
    """Converting and tuning."""

    def run(seed: int) -> float:
        model = convert(copy.deepcopy(trained(seed)), config)
        torch.manual_seed(seed)
        return held_out(learn(add_low_rank(model, LIGER_LAYERS), seed + 100, TUNING, 3e-3))

    return run


TRIAL = Trial(
    claim="after low-rank tuning, gate and window together lose less than the state without either of them",
    measure="loss on held-out Python source, nats a byte",
    higher_is_better=False,
    arms={
        "Liger": arm(LigerConfig(window=WINDOW)),
        "no window": arm(LigerConfig(window=WINDOW, share=1.0)),
        "no gate": arm(LigerConfig(window=WINDOW, gate="none")),
        "window alone": arm(LigerConfig(window=WINDOW, share=0.0)),
        "not converted": lambda seed: held_out(trained(seed)),
    },
    against=("no window", "no gate"),
    task=f"a Llama of {LAYERS} layers of width {WIDTH}, {STEPS} steps of 16 x 64 bytes, window {WINDOW}, "
    f"{TUNING} steps of rank 8",
)
