"""Small text encoders of the kinds that diffusers' pipelines expect, trained to say what a caption says, then frozen.

A caption is read for its attributes ("what colour is the thing on the left?"), so what a denoiser is given already has
the order of words resolved. FLUX needs that: it gives its text tokens no position.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional as F

from .training import FitResult, FitSettings, fit

DrawCaptions = Callable[[int, torch.Generator], tuple[list[str], torch.Tensor]]
"""`draw(count, generator)` gives captions and their labels (count, A), a class number for each of A attributes."""


def caption_words(captions: Sequence[str]) -> list[str]:
    """The distinct words of `captions`, sorted."""
    return sorted({word for caption in captions for word in caption.split()})


def build_clip_tokenizer(words: Sequence[str], length: int) -> Any:
    """A byte-pair tokenizer with one token for each of `words`."""
    from transformers import CLIPTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz"
    merges = byte_pair_merges(words)
    pieces = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    pieces += [first + second for first, second in merges]
    numbers: Any = {piece: number for number, piece in enumerate(pieces)}
    ordered: Any = merges
    return CLIPTokenizer(vocab=numbers, merges=ordered, model_max_length=length)


def byte_pair_merges(words: Sequence[str]) -> list[tuple[str, str]]:
    """Merges that make one token of each of `words`, the most frequent pair first, ties in alphabetical order.

    The trainer of the `tokenizers` package breaks ties differently in every process, and a resumed run must number its
    tokens as it did before.
    """
    spelt = [[*word[:-1], word[-1] + "</w>"] for word in words]
    merges: list[tuple[str, str]] = []
    while any(len(pieces) > 1 for pieces in spelt):
        counts = Counter(pair for pieces in spelt for pair in pairwise(pieces))
        chosen = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(chosen)
        for pieces in spelt:
            index = 0
            while index < len(pieces) - 1:
                if (pieces[index], pieces[index + 1]) == chosen:
                    pieces[index : index + 2] = ["".join(chosen)]
                index += 1
    return merges


def build_t5_tokenizer(words: Sequence[str], length: int) -> Any:
    """A unigram tokenizer with one piece for each of `words`, and letters for whatever else comes."""
    from transformers import T5Tokenizer

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -4.0)]
    pieces += [("▁" + word, -1.0) for word in words]
    pieces += [(letter, -8.0) for letter in "abcdefghijklmnopqrstuvwxyz"]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=length)


def build_clip_encoder(tokenizer: Any, *, width: int, length: int, seed: int = 0) -> Any:
    """An untrained CLIP text model of two layers."""
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(seed)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def build_t5_encoder(tokenizer: Any, *, width: int, seed: int = 0) -> Any:
    """An untrained T5 encoder of two layers."""
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(seed)
    config: Any = T5Config(
        vocab_size=len(tokenizer),
        d_model=width,
        d_kv=width // 4,
        d_ff=2 * width,
        num_layers=2,
        num_heads=4,
        relative_attention_num_buckets=16,
        relative_attention_max_distance=16,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=False,
    )
    return T5EncoderModel(config)


def encode_captions(
    encoder: nn.Module, tokenizer: Any, captions: Sequence[str], length: int, readout: Literal["pooled", "tokens"]
) -> torch.Tensor:
    """What the denoiser is given for `captions`: (B, width) pooled, or (B, length, width) tokens."""
    numbers = tokenizer(
        list(captions), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).input_ids.to(next(encoder.parameters()).device)
    made = encoder(numbers)
    return made.pooler_output if readout == "pooled" else made.last_hidden_state


class AttributeReader(nn.Module):
    """Reads class scores for each attribute off encoded text; tokens are first pooled by one learned query each."""

    def __init__(self, width: int, sizes: Sequence[int]) -> None:
        super().__init__()
        self.queries = nn.Parameter(0.1 * torch.randn(len(sizes), width))
        self.heads = nn.ModuleList(nn.Linear(width, size) for size in sizes)

    def forward(self, encoded: torch.Tensor) -> list[torch.Tensor]:
        """Scores (B, size) of each attribute."""
        if encoded.ndim == 2:
            return [head(encoded) for head in self.heads]
        attention = torch.softmax(encoded @ self.queries.T, 1)
        pooled = attention.transpose(1, 2) @ encoded
        return [head(pooled[:, index]) for index, head in enumerate(self.heads)]


def train_text_encoder(
    name: str,
    encoder: nn.Module,
    tokenizer: Any,
    draw: DrawCaptions,
    sizes: Sequence[int],
    settings: FitSettings,
    folder: Path,
    *,
    length: int,
    readout: Literal["pooled", "tokens"],
    width: int,
    progress: bool = True,
) -> tuple[FitResult, float]:
    """Train `encoder` until the attributes of captions can be read off its output; it is frozen when this returns.

    Args:
        draw: captions with their attributes.
        sizes: the number of classes of each attribute.
        length: tokens a caption is padded to.
        readout: what the denoiser will be given, and what is read here.

    Returns: what it took, and the share of 512 fresh captions with every attribute read right.
    """
    torch.manual_seed(settings.seed)
    reader = AttributeReader(width, sizes).to(next(encoder.parameters()).device)
    both = nn.ModuleDict({"encoder": encoder, "reader": reader})

    def scores(captions: Sequence[str]) -> tuple[list[torch.Tensor], torch.Tensor]:
        encoded = encode_captions(encoder, tokenizer, captions, length, readout)
        return reader(encoded), encoded

    def loss_of(generator: torch.Generator, batch: int) -> torch.Tensor:
        captions, labels = draw(batch, generator)
        read, encoded = scores(captions)
        labels = labels.to(encoded.device)
        wrong = sum(F.cross_entropy(s.float(), labels[:, index]) for index, s in enumerate(read))
        return wrong + 1e-3 * encoded.float().square().mean()

    result = fit(name, both.train(), loss_of, settings, folder, progress=progress)
    encoder.eval().requires_grad_(False)
    captions, labels = draw(512, torch.Generator().manual_seed(999_983))
    with torch.no_grad():
        read, _ = scores(captions)
    right = torch.stack([s.argmax(1).cpu() == labels[:, index] for index, s in enumerate(read)]).all(0)
    return result, float(right.float().mean())
