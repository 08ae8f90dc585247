"""The Block Transformer in small: time to decode, beside a plain model of as many layers."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from ..block_transformer import BlockTransformer, BlockTransformerConfig
from ..hybrid import AttentionConfig, HybridConfig, HybridLanguageModel
from .trial import Trial

VOCABULARY, WIDTH, LAYERS, HEADS = 1000, 256, 6, 8
BATCH, PROMPT, COUNT = 8, 1024, 48


def timed(decode: Callable[[Tensor], object], seed: int) -> float:
    """Milliseconds a token of the faster of two calls, the prompt included."""
    prompt, seconds = torch.randint(VOCABULARY, (BATCH, PROMPT), generator=torch.Generator().manual_seed(seed)), []
    for _ in range(2):
        started = time.process_time()
        decode(prompt)
        seconds.append(time.process_time() - started)
    return 1000 * min(seconds) / (BATCH * COUNT)


def block(length: int) -> Callable[[int], float]:
    """Half of the layers read blocks of `length`, half write them."""
    config = BlockTransformerConfig(
        vocabulary=VOCABULARY, width=WIDTH, block_layers=LAYERS // 2, token_layers=LAYERS // 2, heads=HEADS,
        block=length,
    )  # fmt: skip

    def run(seed: int) -> float:
        torch.manual_seed(seed)
        model = BlockTransformer(config)
        return timed(lambda prompt: model.generate(prompt, COUNT), seed)

    return run


@torch.no_grad()
def plain(seed: int) -> float:
    """Full attention in every layer, decoded with caches."""
    torch.manual_seed(seed)
    model = HybridLanguageModel(
        HybridConfig(
            layer_types=("full",) * LAYERS, width=WIDTH, vocabulary=VOCABULARY, attention=AttentionConfig(heads=HEADS)
        )
    )

    def decode(prompt: Tensor) -> None:
        logits, state = model.step(prompt, None)
        for _ in range(COUNT - 1):
            logits, state = model.step(logits[:, -1:].argmax(-1), state)

    return timed(decode, seed)


TRIAL = Trial(
    claim="reading and keeping the text block by block decodes faster than a plain model of as many layers",
    measure="process time of a token, the prompt included, milliseconds",
    higher_is_better=False,
    arms={"blocks of 4": block(4), "plain": plain, "blocks of 8": block(8)},
    against=("plain",),
    task=f"{COUNT} tokens after {PROMPT}, batch {BATCH}, {LAYERS} layers of width {WIDTH}, fresh weights",
)
