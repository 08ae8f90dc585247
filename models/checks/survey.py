"""What holds exactly for the cost model: counts and FLOPs of models that transformers builds, caches, savings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..companion import check
from ..survey import ARCHITECTURES, MACHINES, TECHNIQUES, Attention, cost, least_seconds
from ..survey.architectures import bert, gpt_neox, llama, vit
from ..survey.techniques import grouped_keys

TOKENS = 12


def built(family: str) -> tuple[Any, dict[str, Any]]:
    """(a small model of transformers without weights, what the cost model calls it)."""
    import transformers as t

    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "attn_implementation": "eager",
    }
    ours: dict[str, Any] = {"width": 32, "layers": 3, "heads": 4, "hidden": 48}
    torch.manual_seed(0)
    with torch.device("meta" if family != "mixtral" else "cpu"):
        if family == "bert":
            model = t.BertModel(t.BertConfig(**sizes, vocab_size=77))
            return model, {**ours, "vocabulary": 77}
        if family == "gpt_neox":
            config = t.GPTNeoXConfig(**sizes, vocab_size=77)
            return t.GPTNeoXForCausalLM(config), {**ours, "vocabulary": 77}
        if family == "vit":
            config = t.ViTConfig(**{**sizes, "image_size": 32, "patch_size": 8, "num_labels": 10})
            return t.ViTForImageClassification(config), {**ours, "patch": 8, "picture": 32, "classes": 10}
        sizes |= {"num_key_value_heads": 2, "vocab_size": 77}
        ours |= {"key_heads": 2, "vocabulary": 77}
        if family == "llama":
            return t.LlamaForCausalLM(t.LlamaConfig(**sizes)), ours
        sizes |= {"num_local_experts": 4, "num_experts_per_tok": 2, "experts_implementation": "eager"}
        config = t.MixtralConfig(**sizes)
        return t.MixtralForCausalLM(config), {**ours, "experts": 4, "chosen": 2}


FAMILIES: dict[str, Callable[..., Any]] = {
    "bert": bert, "gpt_neox": gpt_neox, "llama": llama, "mixtral": llama, "vit": vit,
}  # fmt: skip


@check("survey", "parameters of small BERT, GPT-NeoX, Llama, Mixtral and ViT are those that transformers builds")
def parameters() -> float:
    worst = 0.0
    for family, make in FAMILIES.items():
        model, settings = built(family)
        counted = sum(parameter.numel() for parameter in model.parameters())
        worst = max(worst, abs(cost(make(**settings), {"tokens": 1, "patches": 1}).parameters - counted))
    return worst


@check("survey", "their FLOPs are those that torch counts when they run, causal pairs taken in full as it takes them")
@torch.no_grad()
def flops() -> float:
    from torch.utils.flop_counter import FlopCounterMode

    worst = 0.0
    for family, make in FAMILIES.items():
        model, settings = built(family)
        device = "cpu" if family == "mixtral" else "meta"
        tokens, counts = torch.zeros(2, TOKENS, dtype=torch.long, device=device), {"tokens": TOKENS}
        if family == "vit":
            tokens, counts = torch.zeros(2, 3, 32, 32, device=device), {"tokens": 17, "patches": 16}
        with FlopCounterMode(display=False) as counter:
            model.eval()(tokens)
        parts = tuple(
            Attention(layers=part.layers, heads=part.heads, head_width=part.head_width)
            if isinstance(part, Attention)
            else part
            for part in make(**settings)
        )
        worst = max(worst, abs(cost(parts, counts, batch=2).flops - counter.get_total_flops()))
    return worst


@check("survey", "bytes of the cache are those of the keys and values that Llama keeps after reading")
@torch.no_grad()
def cache() -> float:
    model, settings = built("llama")
    kept = model.eval()(torch.zeros(2, TOKENS, dtype=torch.long, device="meta"), use_cache=True).past_key_values
    numbers = sum(layer.keys.numel() + layer.values.numel() for layer in kept.layers)
    return abs(cost(llama(**settings), TOKENS, batch=2).cache_bytes - numbers * 2)


@check("survey", "reading in two pieces costs the FLOPs of reading at once, with a window and without")
def pieces() -> float:
    worst = 0.0
    for window in (None, 1, 5, 40):
        one = Attention(layers=2, heads=3, head_width=4, causal=True, window=window)
        mask = torch.ones(19, 19).tril().triu(1 - (window or 19)).sum()
        for cut in range(20):
            worst = max(worst, abs(one.pairs(cut, 0) + one.pairs(19 - cut, cut) - float(mask)))
    return worst


PUBLISHED = {
    "bert-base": 109_482_240, "gpt-neox-20b": 20_554_567_680, "llama-2-7b": 6_738_415_616,
    "llama-3-8b": 8_030_261_248, "mixtral-8x7b": 46_702_792_704, "vit-b/16": 86_567_656,
    "dit-xl/2": 675_129_632, "flux.1-dev": 11_901_408_320,
}  # fmt: skip


@check("survey", "published counts: " + ", ".join(f"{name} {count:,}" for name, count in PUBLISHED.items()))
def published() -> float:
    streams: dict[str, int] = dict.fromkeys(("tokens", "patches", "image", "text"), 1)
    return max(abs(cost(ARCHITECTURES[name](), streams).parameters - count) for name, count in PUBLISHED.items())


@check("survey", "three layers of linear attention to one of softmax attention keep a quarter of the keys")
def hybrid_cache() -> float:
    before, after = ARCHITECTURES["llama-2-7b"](), TECHNIQUES["hybrid-3:1"].change(ARCHITECTURES["llama-2-7b"]())
    states = sum(part.cache_bytes(1) for part in after if isinstance(part, Attention) and part.linear)
    return abs(cost(after, 4096).cache_bytes - states - cost(before, 4096).cache_bytes / 4)


@check("survey", "Llama 3 differs from Llama with its sizes by grouped keys alone: a fourth of the cache")
def grouped() -> float:
    sizes: dict[str, Any] = {"hidden": 14336, "vocabulary": 128256}
    made = cost(grouped_keys(llama(**sizes), queries=4), 100)
    wanted = cost(ARCHITECTURES["llama-3-8b"](), 100)
    return abs(made.parameters - wanted.parameters) + abs(made.cache_bytes * 4 - cost(llama(**sizes), 100).cache_bytes)


@check("survey", "decoding one sequence waits for memory, and reading 4096 tokens for arithmetic, on every machine")
def bounds() -> float:
    parts, wrong = ARCHITECTURES["llama-2-7b"](), 0
    for machine in MACHINES.values():
        wrong += least_seconds(cost(parts, 1, cached=2047), machine)[1] != "memory"
        wrong += least_seconds(cost(parts, 4096), machine)[1] != "arithmetic"
    return wrong
