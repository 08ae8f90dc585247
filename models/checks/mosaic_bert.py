"""What holds exactly for MosaicBERT."""

from __future__ import annotations

import torch
from torch import Tensor

from ..companion import check
from ..mosaic_bert import MosaicBert, MosaicBertConfig, mask_tokens

SMALL = {"vocabulary": 29, "width": 32, "layers": 3, "heads": 4, "hidden": 48, "dropout": 0.0}


def model_of(**changes: object) -> MosaicBert:
    torch.manual_seed(0)
    return MosaicBert(MosaicBertConfig(**{**SMALL, **changes})).double()  # pyright: ignore[reportArgumentType]


def batch() -> tuple[Tensor, Tensor]:
    """Tokens, and which of them are valid: rows of 1, 7 and all 12 tokens."""
    tokens = torch.randint(29, (3, 12), generator=torch.Generator().manual_seed(1))
    return tokens, torch.arange(12) < torch.tensor([[1], [7], [12]])


@check("mosaic_bert", "a packed batch gives what each row gives alone, gradients too", at_most=1e-12)
def packed() -> float:
    model, (tokens, valid) = model_of(), batch()
    model(tokens, valid).square().sum().backward()
    together = [parameter.grad for parameter in model.parameters()]
    logits = model(tokens, valid)
    model.zero_grad(set_to_none=True)
    worst = 0.0
    for row, length in enumerate(valid.sum(1).tolist()):
        alone = model(tokens[row : row + 1, :length])
        worst = max(worst, float((alone[0] - logits[row, :length]).detach().abs().max()))
        alone.square().sum().backward()
    for parameter, grad in zip(model.parameters(), together, strict=True):
        if grad is not None and parameter.grad is not None:
            worst = max(worst, float((parameter.grad - grad).abs().max() / grad.abs().max().clamp(min=1e-9)))
    return worst


@check("mosaic_bert", "logits of masked tokens only are the full logits there", at_most=1e-12)
@torch.no_grad()
def subset() -> float:
    model, (tokens, valid) = model_of(), batch()
    masked = valid & (torch.arange(12) % 3 == 0)
    return float((model.masked_logits(tokens, masked, valid) - model(tokens, valid)[masked]).abs().max())


@check(
    "mosaic_bert", "with BERT's positions and network and copied weights it is transformers' BertModel", at_most=1e-5
)
@torch.no_grad()
def bert() -> float:
    from transformers.models.bert.configuration_bert import BertConfig
    from transformers.models.bert.modeling_bert import BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=29, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=12,
    )  # fmt: skip
    theirs = BertModel(config, add_pooling_layer=False).eval()
    ours = model_of(gated=False, learned_positions=12).float()
    given = theirs.state_dict()
    copied = {
        "words.weight": given["embeddings.word_embeddings.weight"],
        "types.weight": given["embeddings.token_type_embeddings.weight"],
        "positions.weight": given["embeddings.position_embeddings.weight"],
        "norm.weight": given["embeddings.LayerNorm.weight"],
        "norm.bias": given["embeddings.LayerNorm.bias"],
    }
    places = {
        "out": "attention.output.dense",
        "norm1": "attention.output.LayerNorm",
        "feed_forward.up": "intermediate.dense",
        "feed_forward.down": "output.dense",
        "norm2": "output.LayerNorm",
    }
    for i in range(3):
        source = f"encoder.layer.{i}"
        for kind in ("weight", "bias"):
            parts = [given[f"{source}.attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
            copied[f"blocks.{i}.query_key_value.{kind}"] = torch.cat(parts)
            copied |= {f"blocks.{i}.{to}.{kind}": given[f"{source}.{place}.{kind}"] for to, place in places.items()}
    ours.load_state_dict({**ours.state_dict(), **copied})
    tokens, valid = batch()
    expected = theirs(tokens, attention_mask=valid.long()).last_hidden_state
    return float((ours.encode(tokens, valid) - expected)[valid].abs().max())


@check("mosaic_bert", "masking hides 30 % within 4 sigma, 80 / 10 / 10, and never a special token", at_most=4.0)
def masking() -> float:
    tokens = torch.arange(100_000).remainder(50) + 10
    special = tokens == 10
    made, hidden = mask_tokens(
        tokens, rate=0.3, mask=4, vocabulary=1000, special=special, generator=torch.Generator().manual_seed(0)
    )
    if (hidden & special).any() or (made != tokens)[~hidden].any():
        return float("inf")
    count = int((~special).sum())
    shares = [(int(hidden.sum()), count, 0.3), (int((made[hidden] == 4).sum()), int(hidden.sum()), 0.8 + 1e-4),
              (int((made == tokens)[hidden].sum()), int(hidden.sum()), 0.1 + 1e-4)]  # fmt: skip
    return max(abs(found - n * p) / (n * p * (1 - p)) ** 0.5 for found, n, p in shares)
