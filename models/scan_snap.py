"""Scan and snap: how attention of one layer learns which tokens tell the next one, step by step.

A last token m attends to a context without positions, and the next token n is read off what it finds. Attention scans
for tokens that are distinct to one n, turns away from those common to several, and then freezes before it is one-hot.
Everything is in two matrices, one row a token: Y of the decoder and Z of attention.

Source: Tian, Wang, Chen, Du, 2023, arXiv:2305.16380.
Shapes: B batch, M tokens of the vocabulary, K next tokens, N contexts' positions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import ConfigError
from .companion import MODELS, Companion


@dataclass(frozen=True, kw_only=True, slots=True)
class Language:
    """Where contexts come from; its tokens are the common ones, then those of each next token, then the next tokens."""

    next_tokens: int = 2
    """K, all of them equally likely after the one last token."""
    common: int = 10
    """Tokens that are in the context of every next token, each as likely as the most likely distinct one."""
    distinct: int = 10
    """Tokens of one next token only, from 0.1 to 1 times as likely."""
    length: int = 128
    """N, drawn each for itself."""

    def __post_init__(self) -> None:
        if self.next_tokens < 2 or min(self.common, self.distinct, self.length) < 1:
            raise ConfigError("a language has at least 2 next tokens, and 1 common and 1 distinct token, and a length")

    @property
    def tokens(self) -> int:
        """M, the last token included."""
        return self.common + self.next_tokens * (self.distinct + 1) + 1

    @property
    def first_next(self) -> int:
        """The token that comes before all other next tokens."""
        return self.common + self.next_tokens * self.distinct

    def chances(self) -> Tensor:
        """(K, M): how likely each token is in the context of each next token."""
        likely = torch.zeros(self.next_tokens, self.tokens, dtype=torch.float64)
        likely[:, : self.common] = 1
        for n in range(self.next_tokens):
            start = self.common + n * self.distinct
            likely[n, start : start + self.distinct] = torch.linspace(0.1, 1, self.distinct, dtype=torch.float64)
        return likely / likely.sum(1, keepdim=True)

    def draw(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(next tokens (B,), counts of tokens in their contexts (B, M))."""
        n = torch.randint(self.next_tokens, (batch,), generator=generator)
        context = torch.multinomial(self.chances()[n], self.length, replacement=True, generator=generator)
        counts = torch.zeros(batch, self.tokens, dtype=torch.float64)
        return self.first_next + n, counts.scatter_add_(1, context, torch.ones_like(context, dtype=torch.float64))


def attend(z_M: Tensor, counts_BM: Tensor) -> Tensor:
    """(B, M): attention to each token, all its places in the context together; with chances for counts, its limit for
    contexts without end."""
    return (counts_BM.log() + z_M).softmax(1)


def gradients(Y_MM: Tensor, z_M: Tensor, counts_BM: Tensor, next_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Directions of steepest descent in closed form: (of Y (M, M), of the last token's row of Z (M,), the loss).

    f = p / |p| is what attention p finds, Y^T f are the logits and alpha their softmax. Y grows by f (x_n - alpha)^T
    and z by p (1 - f f^T) Y (x_n - alpha) / |p|, each the mean over the batch.
    """
    p = attend(z_M, counts_BM)
    size = p.norm(dim=1, keepdim=True)
    f = p / size
    logits = f @ Y_MM
    missing = torch.nn.functional.one_hot(next_B, Y_MM.shape[0]).to(logits) - logits.softmax(1)
    back = missing @ Y_MM.T
    back = (back - f * (f * back).sum(1, keepdim=True)) / size
    loss = torch.nn.functional.cross_entropy(logits, next_B)
    return f.T @ missing / len(p), (p * back).mean(0), loss


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """What a training did; lists have an entry before every step and one after the last."""

    Y_MM: Tensor
    """The decoder at its end."""
    z_M: Tensor
    """The last token's attention at its end, before the softmax."""
    loss: list[float] = field(default_factory=list)
    """Nats."""
    common: list[float] = field(default_factory=list)
    """Attention to common tokens, of contexts without end, mean over next tokens."""
    entropy: list[float] = field(default_factory=list)
    """Of that attention, nats."""


def train(
    language: Language, *, decoder_rate: float, attention_rate: float, steps: int = 400, batch: int = 64, seed: int = 0
) -> History:
    """Both matrices from 0, by plain gradient descent on fresh contexts.

    Raises: ConfigError: a rate, the steps or the batch is not positive.
    """
    if not (decoder_rate > 0 and attention_rate > 0 and steps > 0 and batch > 0):
        raise ConfigError("rates, steps and batch of a training must be positive")
    generator, chances = torch.Generator().manual_seed(seed), language.chances()
    made = History(
        Y_MM=torch.zeros(language.tokens, language.tokens, dtype=torch.float64),
        z_M=torch.zeros(language.tokens, dtype=torch.float64),
    )
    for step in range(steps + 1):
        following, counts = language.draw(batch, generator)
        for_decoder, for_attention, loss = gradients(made.Y_MM, made.z_M, counts, following)
        limit = attend(made.z_M, chances)
        made.loss.append(float(loss))
        made.common.append(float(limit[:, : language.common].sum(1).mean()))
        made.entropy.append(float(torch.special.entr(limit).sum(1).mean()))
        if step < steps:
            made.Y_MM.add_(for_decoder, alpha=decoder_rate)
            made.z_M.add_(for_attention, alpha=attention_rate)
    return made


def freezing_step(language: Language, decoder_rate: float) -> float:
    """About when attention snaps: 2 K ln M / decoder_rate (theorem 4)."""
    return 2 * language.next_tokens * math.log(language.tokens) / decoder_rate


SCAN_SNAP = MODELS.add(
    "scan_snap",
    Companion(
        title="Scan and Snap: Understanding Training Dynamics and Token Composition in 1-layer Transformer",
        source="Tian, Wang, Chen, Du, 2023, arXiv:2305.16380",
        summary="how one layer's attention leaves common tokens for distinct ones while it trains, and then freezes",
        use="outpace.models.scan_snap.train(Language(), ...) follows a training",
        done=(
            "the dynamics of decoder and attention in closed form, for one last token",
            "the paper's synthetic language, and the limit of contexts without end",
            "attention to common tokens, its entropy and the loss over a training; the step about which it freezes",
        ),
        left_out=(
            "several last tokens: their rows of Z do not meet, but in the decoder",
            "the theorem's bounds on growth before and after freezing; momentum; WikiText and deeper models",
        ),
        claim="attention turns to distinct tokens until the decoder has learned; the faster that is, the less it turns",
        limits=(
            "the theorem is of a single common token: of several, one may gain while all of them together lose",
            "the freezing step is an order of magnitude, from bounds",
        ),
    ),
)
