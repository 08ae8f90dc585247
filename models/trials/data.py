"""What trials train on: text that ships with Python, and pairs to remember. Nothing is downloaded.

Shapes: B batch, T tokens.
"""

from __future__ import annotations

import functools
import sysconfig
from pathlib import Path

import torch
from torch import Tensor

BYTES = 128
"""Vocabulary of the text: ASCII."""
TEXT_BYTES = 1 << 21


@functools.cache
def python_source() -> tuple[Tensor, Tensor]:
    """(training, held-out) bytes of the standard library's modules, by name; the last 5 % are held out."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    text = b"".join(file.read_bytes() for file in files)[:TEXT_BYTES]
    kept = torch.frombuffer(bytearray(byte for byte in text if byte < BYTES), dtype=torch.uint8).long()
    cut = int(len(kept) * 0.95)
    return kept[:cut], kept[cut:]


def windows(text: Tensor, batch: int, length: int, generator: torch.Generator) -> Tensor:
    """(B, length + 1): pieces of the text from anywhere."""
    starts = torch.randint(len(text) - length - 1, (batch,), generator=generator)
    return text[starts[:, None] + torch.arange(length + 1)]


def recall(batch: int, pairs: int, generator: torch.Generator, *, kinds: int = 16) -> tuple[Tensor, Tensor]:
    """(tokens, targets): pairs of a key and a value, then the keys again in another order; a target is a key's value.

    Keys are 0 to kinds - 1, values kinds to 2 kinds - 1; targets are -100 where nothing is asked.

    Shapes: (B, 3 pairs), both.
    """
    keys = torch.stack([torch.randperm(kinds, generator=generator)[:pairs] for _ in range(batch)])
    values = torch.randint(kinds, 2 * kinds, (batch, pairs), generator=generator)
    order = torch.stack([torch.randperm(pairs, generator=generator) for _ in range(batch)])
    told = torch.stack([keys, values], -1).flatten(1)
    tokens = torch.cat([told, keys.gather(1, order)], 1)
    targets = torch.cat([torch.full_like(told, -100), values.gather(1, order)], 1)
    return tokens, targets
