"""What a mixture has to beat: feed-forward layers cut to their most important units, and blocks taken out for good."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import ConfigError, InputError
from ..denoiser import echo
from ..families import Stack, find_family
from .dense import Dense
from .feed_forward import SharedExpert
from .fused import parameter_of


class CutFeedForward(nn.Module):
    """A dense feed-forward layer with its most important hidden units alone.

    Args:
        dense: the layer that is cut; its weights are copied.
        order_H: its hidden units, most important first.
        share: of the hidden units, how many stay.
    """

    def __init__(self, dense: Dense, order_H: Tensor, share: float) -> None:
        super().__init__()
        self.kept = SharedExpert(dense.take(order_H[: max(1, round(share * dense.hidden))]))
        self.bias = None if dense.bias_O is None else parameter_of(dense.bias_O)

    def forward(self, x: Tensor) -> Tensor:
        y = self.kept(x)
        return y if self.bias is None else y + self.bias


def drop_blocks(transformer: nn.Module, places: Sequence[int]) -> None:
    """Take blocks out of `transformer`, in place.

    Raises: ConfigError for a place that there is not, and for the last block: forecasts go by the first and the last;
        for a transformer that goes by the places of its blocks.
    """
    family = find_family(transformer)
    blocks = family.blocks(transformer)
    if places and family.numbered:
        raise ConfigError(
            f"no block of {type(transformer).__name__} can be dropped, for it reads what each is given by its place: "
            "leave them out by noise level (Conversion(left_out=...), convert --levels)"
        )
    check_places(places, len(blocks), "dropped")
    gone = {id(blocks[place][1]) for place in places}
    for path in {stack.path for stack, _ in blocks}:
        parent, _, name = path.rpartition(".")
        kept = nn.ModuleList(b for b in transformer.get_submodule(path).children() if id(b) not in gone)
        setattr(transformer.get_submodule(parent), name, kept)


def check_places(places: Sequence[int], blocks: int, how: str) -> None:
    """Whether the blocks at `places` (ascending) can be "dropped" or "left out" of so many.

    Raises: ConfigError for a place that there is not, and for the last block: forecasts go by the first and the last.
    """
    if places and places[-1] >= blocks - 1:
        raise ConfigError(f"block {places[-1]} cannot be {how}: of {blocks}, choose among 1-{blocks - 2}")


def block_effects(
    transformer: nn.Module, calls: Iterable[Mapping[str, Any]], places: Iterable[int] | None = None
) -> Tensor:
    """How far the output moves when a block is left out: mean squared change for each sample, (samples, blocks).

    What a static choice of blocks goes by, and what routers of groups begin with.

    Args:
        calls: keyword arguments of the transformer at several noise levels.
        places: of the blocks that are tried, counted from 0; the others stand at infinity. None tries all.

    Raises: InputError where there is no call.
    """
    blocks = find_family(transformer).blocks(transformer)
    tried = range(len(blocks)) if places is None else list(places)
    rows = []
    for call in calls:
        with torch.no_grad():
            whole = transformer(**{**call, "return_dict": False})[0]
            moved = whole.new_full((len(whole), len(blocks)), torch.inf, dtype=torch.float32)
            for place in tried:
                with left_out(*blocks[place]):
                    output = transformer(**{**call, "return_dict": False})[0]
                moved[:, place] = (output - whole).float().square().flatten(1).mean(1)
        rows.append(moved)
    if not rows:
        raise InputError("what a block does to the output needs at least one call")
    return torch.cat(rows)


@contextmanager
def left_out(stack: Stack, block: nn.Module) -> Iterator[None]:
    names = list(inspect.signature(block.forward).parameters)

    def forward(*args: Any, **kwargs: Any) -> Any:
        return echo({**dict(zip(names, args, strict=False)), **kwargs}, stack)

    vars(block)["forward"] = forward
    try:
        yield
    finally:
        del vars(block)["forward"]
