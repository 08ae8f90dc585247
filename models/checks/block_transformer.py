"""What holds exactly for Block Transformers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...errors import ConfigError
from ..block_transformer import BlockTransformer, BlockTransformerConfig, cached_numbers, pad
from ..companion import check

SMALL = BlockTransformerConfig(vocabulary=13, width=16, block_layers=2, token_layers=2, heads=2)


def small() -> BlockTransformer:
    torch.manual_seed(0)
    model = BlockTransformer(SMALL).double()
    for module in model.modules():
        if isinstance(module, nn.Embedding | nn.Linear):
            nn.init.normal_(module.weight, std=0.3)  # so that the likeliest token is not a tie
    return model


def tokens(count: int = 24) -> Tensor:
    return torch.randint(13, (2, count), generator=torch.Generator().manual_seed(1))


@check("block_transformer", "a changed token changes logits after it in its block, and of later blocks, no others")
@torch.no_grad()
def causal() -> float:
    model, whole = small(), tokens()
    wrong = 0
    for place in (0, 3, 9, 11, 18):
        other = whole.clone()
        other[:, place] = (other[:, place] + 1) % 13
        moved = ((model(whole) - model(other)).abs().amax((0, 2)) > 0).tolist()
        after = [token > place for token in range(4, 24)]
        wrong += moved != after
    return float(wrong)


@check("block_transformer", "with the contexts held, a block's logits depend on its own tokens alone")
@torch.no_grad()
def bottleneck() -> float:
    model, one, other = small(), tokens(), tokens()
    other[:, :12] = (other[:, :12] + 1) % 13
    contexts = model.blocks(model.read(one[:, :-4]))
    model.blocks.register_forward_hook(lambda *_: contexts)
    return float((model(one) - model(other))[:, 8:].abs().max())


@check("block_transformer", "decoding with caches gives the likeliest tokens of the whole text, for prompts of 1 to 9")
@torch.no_grad()
def decoding() -> float:
    model, wrong = small(), 0
    for count in range(1, 10):
        text = pad(tokens(count), 4, 0)
        told = model.generate(text, 11)
        for token in told.T:
            filled = torch.cat([text, text.new_zeros(2, 4 - text.shape[1] % 4)], 1)
            wrong += int((model(filled)[:, text.shape[1] - 4].argmax(-1) != token).sum())
            text = torch.cat([text, token[:, None]], 1)
    return float(wrong)


@check("block_transformer", "the caches hold as many numbers as the formula says: a fourth a layer that reads blocks")
@torch.no_grad()
def caches() -> float:
    model = small()
    contexts, kept = model.blocks(model.read(tokens(40)[:1]))
    _, inner = model.writer(torch.cat([model.prefix(contexts[:, -1]), model.tokens(tokens(3)[:1])], 1))
    held = sum(one.numel() for cache in (*kept, *inner) for one in cache)
    plain = 2 * SMALL.width * SMALL.block_layers * 40
    read = sum(one.numel() for cache in kept for one in cache)
    return abs(held - cached_numbers(SMALL, 40)) + abs(4 * read - plain)


@check("block_transformer", "texts that are not two whole blocks, and prompts that are not one, are refused")
def refused() -> float:
    model, missed = small(), 0
    for call in (lambda: model(tokens(6)), lambda: model(tokens(4)), lambda: model.generate(tokens(5), 1)):
        try:
            call()
        except ConfigError:
            continue
        missed += 1
    return float(missed)
