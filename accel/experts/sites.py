"""Where the dense feed-forward layers of a transformer are, how each class keeps its matrices, and how it is replaced.

A site is found by its class inside the blocks of the model's family. Fused single-stream blocks, whose matrices are
glued to those of attention, are taken apart by replacing children of the block, never its class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ...errors import UnsupportedModelError
from ...registry import Registry
from ..families import find_family
from .dense import Dense

Pick = Callable[[Tensor], Tensor]
"""What stands in for a weight while a layer is read: itself, or something of its shape such as its gradient."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteKind:
    """How one or more classes keep a dense feed-forward layer."""

    classes: tuple[str, ...]
    """Class names of the module that is looked for."""
    children: tuple[str, ...]
    """Children that it has; two classes of one name are told apart by them."""
    read: Callable[[Any, Pick], Dense]
    """The layer's matrices, with every weight seen through the second argument."""
    fuse: Callable[[Any, nn.Module], None] | None = None
    """Puts experts among the module's children where attention shares its matrices; None: they replace the module."""

    def covers(self, module: nn.Module) -> bool:
        return type(module).__name__ in self.classes and all(hasattr(module, child) for child in self.children)


SITE_KINDS: Registry[SiteKind] = Registry("feed-forward layer")

REFUSED = {
    "GLUMBConv": "its feed-forward layers convolve neighbouring tokens, so no token can choose experts for itself",
    "MOEFeedForwardSwiGLU": "it is a mixture of experts already",
    "NucleusMoELayer": "it is a mixture of experts already",
    "ExpertFeedForward": "it is a mixture of experts already",
    "NoiseFeedForward": "it is a mixture of experts already",
    "CutFeedForward": "its feed-forward layers are cut already",
}
"""Classes that keep a transformer from being converted, and why."""


@dataclass(frozen=True, slots=True)
class Site:
    """One dense feed-forward layer of a transformer."""

    path: str
    """Where it is: "transformer_blocks.0.ff"."""
    module: nn.Module
    kind: SiteKind

    def read(self, pick: Pick = lambda weight: weight) -> Dense:
        """Its matrices, views of the weights."""
        return self.kind.read(self.module, pick)

    def place(self, transformer: nn.Module, experts: nn.Module) -> None:
        """Put `experts` in its place."""
        if self.kind.fuse is not None:
            self.kind.fuse(self.module, experts)
            return
        parent, _, name = self.path.rpartition(".")
        setattr(transformer.get_submodule(parent), name, experts)


def find_sites(transformer: nn.Module) -> list[Site]:
    """Every dense feed-forward layer in the blocks of `transformer`, in execution order.

    Raises: UnsupportedModelError where there is none in a block, where experts cannot replace one, or where no family
        covers the transformer.
    """
    for module in transformer.modules():
        why = REFUSED.get(type(module).__name__)
        if why is not None:
            raise UnsupportedModelError(f"{type(transformer).__name__} cannot be converted: {why}")
    paths = {id(module): path for path, module in transformer.named_modules()}
    sites: list[Site] = []
    for _, block in find_family(transformer).blocks(transformer):
        found = [
            Site(paths[id(module)], module, kind)
            for module in block.modules()
            for _, kind in SITE_KINDS.items()
            if kind.covers(module)
        ]
        if not found:
            raise UnsupportedModelError(
                f"{type(block).__name__} has no feed-forward layer that is understood; its children are "
                f"{', '.join(type(child).__name__ for child in block.children())}. Describe it with a SiteKind in "
                "outpace.accel.experts.SITE_KINDS"
            )
        sites += found
    return sites
