"""What a model family looks like from outside: its stacks of blocks in order, and what a block takes and returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import ConfigError, UnsupportedModelError
from ...registry import Registry

if TYPE_CHECKING:
    from torch import nn

TEXT_THEN_IMAGE = ("encoder_hidden_states", "hidden_states")
IMAGE_THEN_TEXT = ("hidden_states", "encoder_hidden_states")


@dataclass(frozen=True, kw_only=True, slots=True)
class Stack:
    """One list of blocks that the transformer runs in order."""

    path: str
    """Attribute of the transformer that holds the blocks: "transformer_blocks"."""

    returns: tuple[str, ...] = ("hidden_states",)
    """Names of the block's arguments that its result replaces, in the order returned. One name: a bare tensor is
    returned. ("encoder_hidden_states", "hidden_states"): a tuple. A skipped block hands these arguments back."""

    hidden: str = "hidden_states"
    """Name of the argument that carries the tokens which become the picture."""

    attention: tuple[str, ...] = ("attn", "attn1")
    """Names, inside a block, of its self-attention: over the picture's tokens, alone or with the text's."""

    text: str = "start"
    """Where the text's tokens lie in that self-attention, if they are in it: "start" or "end"."""

    shared: tuple[str, ...] = ("image_rotary_emb", "rotary_emb", "freqs_cis")
    """Arguments whose tensors have no batch dimension in front. Every other tensor whose first size is the batch is
    cut down when only some samples of a batch are computed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """How to read one family of diffusers transformers.

    Args:
        name: the family's name ("flux").
        transformers: class names of the denoisers it covers.
        stacks: their stacks of blocks, in the order of the forward pass.
        frames_first: how video latents are laid out.
    """

    name: str
    transformers: tuple[str, ...]
    stacks: tuple[Stack, ...]
    frames_first: bool = False
    """True where latents of five dimensions are (batch, frames, channels, height, width)."""

    def __post_init__(self) -> None:
        if not self.transformers or not self.stacks:
            raise ConfigError(f"family '{self.name}' needs at least one transformer class name and one stack of blocks")

    def blocks(self, transformer: nn.Module) -> list[tuple[Stack, nn.Module]]:
        """Every block of `transformer` with its stack, in execution order.

        Raises: UnsupportedModelError where a stack is missing or there are fewer than two blocks.
        """
        found: list[tuple[Stack, nn.Module]] = []
        for stack in self.stacks:
            holder = getattr(transformer, stack.path, None)
            if holder is None:
                raise UnsupportedModelError(
                    f"{type(transformer).__name__} has no '{stack.path}', which family '{self.name}' expects; "
                    "register an adapter of your own with outpace.register_family"
                )
            found += [(stack, block) for block in holder]
        if len(found) < 2:
            raise UnsupportedModelError(
                f"{type(transformer).__name__} has {len(found)} block(s); forecasting the last from the first needs two"
            )
        return found


FAMILIES: Registry[Family] = Registry("model family")


def register_family(family: Family) -> Family:
    """Make `accelerate` understand the transformers that `family` names.

    Raises: ConfigError where the name is taken.
    """
    return FAMILIES.add(family.name, family)


def find_family(transformer: nn.Module) -> Family:
    """The family whose adapter covers `transformer`, by its class or one of its bases.

    Raises: UnsupportedModelError with what is missing and how to add it.
    """
    from torch import nn

    names = [cls.__name__ for cls in type(transformer).__mro__]
    for name in names:
        for _, family in FAMILIES.items():
            if name in family.transformers:
                return family
    if hasattr(transformer, "_orig_mod"):
        raise UnsupportedModelError(
            "the transformer as a whole was compiled (torch.compile(transformer)), and its blocks cannot be seen any "
            "more; compile it in place instead, transformer.compile(), or its blocks: compile_repeated_blocks()"
        )
    lists = [n for n, child in transformer.named_children() if isinstance(child, nn.ModuleList) and len(child) > 1]
    raise UnsupportedModelError(
        f"{names[0]} cannot be accelerated: no family adapter covers it. Its lists of blocks are: "
        f"{', '.join(lists) or 'none found'}. If one of them is run in order from embedding to output head, register "
        f"it: outpace.register_family(Family(name=..., transformers=('{names[0]}',), "
        "stacks=(Stack(path=..., returns=(...)),))); see docs/adding_a_family.md"
    )
