"""What a transformer does with depth: how alike its layers' states are, which phases they fall into, how they move.

Source: Jacobs et al., 2025, arXiv:2512.19941.
Shapes: L layers, B pictures, N tokens, D width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ..kernels.precision import widened


@contextmanager
def states(blocks: Iterable[nn.Module]) -> Iterator[list[Tensor]]:
    """Fills a list with what goes into the first block and what comes out of each, (B, N, D), as the model runs.

    A block takes its hidden states first and returns them, or a tuple that begins with them. The hooks go when the
    context ends.
    """
    seen: list[Tensor] = []

    def before(_block: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0].detach())

    def behind(_block: nn.Module, _inputs: object, made: Tensor | tuple[Tensor, ...]) -> None:
        seen.append((made if isinstance(made, Tensor) else made[0]).detach())

    watched = list(blocks)
    handles = [watched[0].register_forward_pre_hook(before)] if watched else []
    handles += [block.register_forward_hook(behind) for block in watched]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def similarity(seen: Sequence[Tensor], *, class_tokens: int = 1, registers: int = 0) -> Tensor:
    """(L, L): the cosine of two layers' states, mean over pictures, of the class token and of the mean of all patches.

    Raises: ConfigError: layers of different shapes, or no patches.
    """
    described = torch.stack([_described(x, class_tokens, registers) for x in _checked(seen, class_tokens + registers)])
    unit = F.normalize(described, dim=-1)
    return torch.einsum("ibkd,jbkd->ij", unit, unit) / (unit.shape[1] * unit.shape[2])


def phases(similarity_LL: Tensor, *, count: int | None = None, least: float = 0.1) -> list[range]:
    """Runs of layers that are alike, in order: of all ways to cut the layers, the one that takes most distance apart.

    Distance is 1 - similarity; cuts take apart that of all pairs of layers of different runs. Differs from the
    published code, which halves runs one after the other, and so cuts a long phase between short ones in its middle.

    Args:
        count: how many phases; where None, one more as long as it takes apart more than `least`.
        least: share of all distance. The paper halves with 0.2, 0.1 and 0.09 for 2, 3 and 4 phases of DINOv2-B.

    Raises: ConfigError: not square, or settings without meaning.
    """
    layers = len(similarity_LL)
    if similarity_LL.shape != (layers, layers) or not least > 0 or not 1 <= (count or 1) <= layers or count == 0:
        raise ConfigError(
            f"phases are cut from a square similarity into at least 1 and at most as many as layers, each for a share "
            f"above 0, not from {tuple(similarity_LL.shape)} into {count} for {least}"
        )
    distance = (1 - widened(similarity_LL)).triu(1)
    total = float(distance.sum())
    kept = [[float(distance[a:b, a:b].sum()) for b in range(layers + 1)] for a in range(layers + 1)]
    # best[b]: the least that phases of the layers before b keep together, and their cuts; one phase more every round
    best: list[tuple[float, tuple[int, ...]]] = [(kept[0][b], ()) for b in range(layers + 1)]
    chosen = best[layers]
    for more in range(2, (count or layers) + 1):
        best = [
            min((best[a][0] + kept[a][b], (*best[a][1], a)) for a in range(more - 1, b))
            if b >= more
            else (math.inf, ())
            for b in range(layers + 1)
        ]
        if count is None and not chosen[0] - best[layers][0] > least * total:
            break
        chosen = best[layers]
    ends = [0, *chosen[1], layers]
    return [range(a, b) for a, b in pairwise(ends)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Dynamics:
    """How states move from layer to layer, mean over pictures: a number for each of L states or of L - 1 steps."""

    to_the_end: list[float]
    """L: cosine of a token with what it ends as."""
    turn: list[float]
    """L - 1: degrees that a token turns in a layer."""
    class_turn: list[float]
    """L - 1: the same of class tokens alone; empty where there is none."""
    coherence: list[float]
    """L: cosine of a patch with the mean of all patches of its picture."""
    step_rank: list[float]
    """L - 1: in how many directions a layer moves patches: squares of all singular values over the largest's."""


def dynamics(seen: Sequence[Tensor], *, class_tokens: int = 1, registers: int = 0) -> Dynamics:
    """How states move over depth.

    Raises: ConfigError: layers of different shapes, no patches, or fewer than two layers.
    """
    special = class_tokens + registers
    x = widened(torch.stack(_checked(seen, special)))
    if len(x) < 2:
        raise ConfigError("states move between at least two layers")
    patches = x[:, :, special:]
    steps = patches.diff(dim=0).flatten(1, 2)

    def turned(tokens: Tensor) -> list[float]:
        cosine = F.cosine_similarity(tokens[1:], tokens[:-1], dim=-1).clamp(-1, 1)
        return cosine.acos().rad2deg().mean((1, 2)).tolist()

    singular = torch.linalg.svdvals(steps)
    return Dynamics(
        to_the_end=F.cosine_similarity(x, x[-1:], dim=-1).mean((1, 2)).tolist(),
        turn=turned(patches),
        class_turn=turned(x[:, :, :class_tokens]) if class_tokens else [],
        coherence=F.cosine_similarity(patches, patches.mean(2, keepdim=True), dim=-1).mean((1, 2)).tolist(),
        step_rank=(singular.square().sum(-1) / singular[:, 0].square().clamp(min=torch.finfo(x.dtype).tiny)).tolist(),
    )


def apart(seen: Sequence[Tensor], others: Sequence[Tensor]) -> list[float]:
    """Degrees between two runs of a model, layer by layer: whether a disturbance grows with depth or is put right.

    Raises: ConfigError: runs of different shapes.
    """
    if [x.shape for x in seen] != [x.shape for x in others]:
        raise ConfigError("two runs are compared layer by layer: give states of the same shapes")
    pairs = zip(seen, others, strict=True)
    return [float(F.cosine_similarity(a, b, dim=-1).clamp(-1, 1).acos().rad2deg().mean()) for a, b in pairs]


def _described(x_BND: Tensor, class_tokens: int, registers: int) -> Tensor:
    """(B, 1 + class tokens, D): class tokens, and the mean of all patches."""
    patches = x_BND[:, class_tokens + registers :].mean(1, keepdim=True)
    return widened(torch.cat([x_BND[:, :class_tokens], patches], 1))


def _checked(seen: Sequence[Tensor], special: int) -> list[Tensor]:
    shapes = {tuple(x.shape) for x in seen}
    if len(shapes) != 1 or any(len(shape) != 3 or shape[1] <= special for shape in shapes):
        raise ConfigError(
            f"states are of one shape (batch, tokens, width) with more than {special} tokens, not {sorted(shapes)}"
        )
    return list(seen)
