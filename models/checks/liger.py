"""What holds exactly for Liger."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from ..companion import check
from ..layers.low_rank import add_low_rank, fold_low_rank
from ..liger import LIGER_LAYERS, LigerAttention, LigerConfig, LigerState, convert, step

FAMILIES = ("Llama", "Mistral", "Qwen2")
NORMS = 1e-5
"""The norms of transformers round to float32, whatever the type of the model."""


def model_of(family: str = "Llama") -> Any:
    """A small model of transformers with two query heads a key head, in float64."""
    transformers = import_module("transformers")
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(
        vocab_size=17, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=64, initializer_range=0.3,
    )  # fmt: skip
    return getattr(transformers, f"{family}ForCausalLM")(config).double().eval()


def tokens(count: int = 24) -> Tensor:
    return torch.randint(17, (2, count), generator=torch.Generator().manual_seed(1))


@check("liger", "with a window as long as the text and no share of the state: Llama, Mistral, Qwen2", at_most=NORMS)
@torch.no_grad()
def lossless() -> float:
    worst = 0.0
    for family in FAMILIES:
        model = model_of(family)
        exact = model(tokens()).logits
        worst = max(worst, float((convert(model, LigerConfig(share=0.0))(tokens()).logits - exact).abs().max()))
    return worst


@check("liger", "conversion adds no parameter and keeps every name and tensor")
@torch.no_grad()
def parameters() -> float:
    model = model_of("Qwen2")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    after = convert(model, LigerConfig()).state_dict()
    return float(before.keys() != after.keys() or any(not torch.equal(after[name], before[name]) for name in before))


@check("liger", "decoding in pieces is reading at once, within the window and beyond it", at_most=NORMS)
@torch.no_grad()
def decoding() -> float:
    worst = 0.0
    for config in (LigerConfig(window=5), LigerConfig(window=1), LigerConfig(window=5, full_every=2)):
        model, parts, state = convert(model_of(), config), [], None
        for part in tokens().split([9, 1, 1, 3, 10], 1):
            logits, state = step(model, part, state)
            parts.append(logits)
        worst = max(worst, float((torch.cat(parts, 1) - model(tokens()).logits).abs().max()))
    return worst


@check("liger", "the state after 60 tokens is as large as after 10")
@torch.no_grad()
def size() -> float:
    model = convert(model_of(), LigerConfig(window=5))

    def held(state: LigerState) -> int:
        return sum(x.numel() for one in state.layers for x in (one.keys, one.values, one.memory) if x is not None)

    return abs(held(step(model, tokens(10), None)[1]) - held(step(model, tokens(60), None)[1]))


@check("liger", "the recurrent half is S = exp(logsigmoid(k) / 16) S + softmax(k) v, read by softmax(q)", at_most=1e-12)
@torch.no_grad()
def recurrence() -> float:
    layer = convert(model_of(), LigerConfig()).model.layers[0].self_attn
    assert isinstance(layer, LigerAttention)
    generator = torch.Generator().manual_seed(2)
    q, k, v = (torch.randn(1, heads, 20, 8, generator=generator, dtype=torch.float64) for heads in (4, 2, 2))
    S, worst = torch.zeros(4, 8, 8, dtype=torch.float64), 0.0
    found, _ = layer.recall(q, k, v, None)
    for t in range(20):
        kt, vt = (part[0, :, t].repeat_interleave(2, 0) for part in (k, v))
        S = (kt.sigmoid() ** (1 / 16))[..., None] * S + kt.softmax(-1)[..., None] * vt[:, None]
        worst = max(worst, float((torch.einsum("hk,hkv->hv", q[0, :, t].softmax(-1), S) - found[0, :, t]).abs().max()))
    return worst


@check("liger", "a low-rank change begins as none, is all that learns, and folds into plain layers", at_most=NORMS)
@torch.no_grad()
def low_rank() -> float:
    model = convert(model_of(), LigerConfig(window=5))
    exact, names = model(tokens()).logits, model.state_dict().keys()
    torch.manual_seed(4)
    begun = (add_low_rank(model, LIGER_LAYERS, rank=2)(tokens()).logits - exact).abs().max()
    learnt = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    for parameter in (parameter for parameter in model.parameters() if parameter.requires_grad):
        parameter.add_(torch.randn(parameter.shape, dtype=parameter.dtype), alpha=0.1)
    changed = model(tokens()).logits
    folded = (fold_low_rank(model)(tokens()).logits - changed).abs().max()
    strange = len(learnt) != 2 * 3 * 2 or model.state_dict().keys() != names or torch.equal(changed, exact)
    return float(begun + folded + strange)
