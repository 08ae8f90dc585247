"""What is to be known of a model family, the register of them, and who covers a transformer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError, UnsupportedModelError
from ...registry import Registry

if TYPE_CHECKING:
    import torch
    from torch import nn

Named = Mapping[str, Any]
"""The arguments of a call by name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stack:
    """One list of blocks that the transformer runs in order."""

    path: str
    """Where the transformer holds the blocks: "transformer_blocks", "mode_blocks.image"."""

    returns: tuple[str, ...] = ("hidden_states",)
    """Names of the block's arguments that its result replaces, in the order returned. One name: a bare tensor is
    returned. ("encoder_hidden_states", "hidden_states"): a tuple. A skipped block hands these arguments back."""

    hidden: str = "hidden_states"
    """Name of the argument that carries the tokens which become the picture."""

    also: Mapping[str, str] = field(default_factory=dict)
    """Streams that leave the model beside the picture, with the arguments that carry their tokens: {"audio":
    "audio_hidden_states"}. They are forecast as well, and the one that is forecast worst decides. Text is none."""

    split: Callable[[Named], dict[str, torch.Tensor]] | None = None
    """Where several streams lie packed in `hidden`: their names with the places of their tokens, read off the
    transformer's arguments. None: `hidden` is one stream."""

    attention: tuple[str, ...] = ("attn", "attn1")
    """Names, inside a block, of its self-attention: over the picture's tokens, alone or with the text's."""

    text: str = "start"
    """Where the text's tokens lie in that self-attention, if they are in it: "start" or "end"."""

    shared: tuple[str, ...] = ("image_rotary_emb", "rotary_emb", "freqs_cis")
    """Arguments whose tensors have no batch dimension in front. Every other tensor whose first size is the batch is
    cut down when only some samples of a batch are computed."""

    axes: Mapping[str, int | None] = field(default_factory=dict)
    """Arguments whose tensors carry the batch along another axis than the first: {"x": 1} for (tokens, batch, width).
    None: they carry none, and a call is one sample."""

    conditioning: tuple[str, ...] = ("temb",)
    """What the blocks call the embedding of timestep, guidance and pooled text, or the timestep itself."""

    folded: bool = False
    """True where a sample is several rows of the block's batch, one after the other: its frames, or its patches."""

    trailing: tuple[str, ...] = ()
    """Arguments whose tensors have one row more than the batch, which is for all samples."""

    unless: Callable[[nn.Module], bool] | None = None
    """Says of a transformer that these blocks have to run at every call, so that they are left alone."""

    span: Callable[[nn.Module], slice] | None = None
    """Which blocks at `path` these are, where others there are handed other streams: what one changed is of no use
    across that border. None: all of them."""

    dense: str = ""
    """Why its self-attention cannot be made sparse, where it cannot: "it is linear"."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """How to read one family of diffusers transformers.

    Args:
        name: the family's name ("flux").
        transformers: class names of the denoisers it covers.
        stacks: their stacks of blocks, in the order of the forward pass.
    """

    name: str
    transformers: tuple[str, ...]
    stacks: tuple[Stack, ...]
    interleaved: bool = False
    """True where the stacks take turns: the first block of each, then the second of each."""

    latents: str = "hidden_states"
    """The argument of the transformer with what is denoised, one entry a row of the batch."""

    time: str = "timestep"
    """The one with the noise level. Where samples or tokens have their own, the largest counts."""

    moving: tuple[str, ...] = ()
    """Others that are different at every step by themselves, latents and times of further streams among them: they say
    nothing about what the pipeline is asked for."""

    residuals: tuple[str, ...] = (
        "controlnet_block_samples",
        "controlnet_single_block_samples",
        "block_controlnet_hidden_states",
    )
    """Those with residuals of a ControlNet, which follow the latents."""

    grid: Callable[[Named], Sequence[int] | None] | None = None
    """Where latents come packed as (batch, tokens, channels): frames, height and width of the tokens, read off the
    transformer's arguments; see families/grids.py. Other latents tell by their shape."""

    frames_first: bool = False
    """True where latents of five dimensions are (batch, frames, channels, height, width)."""

    numbered: bool = False
    """True where the forward pass goes by how many blocks there are and by the place of each, so that none of them can
    be taken out."""

    cache: str | None = None
    """The argument with the keys and values that a pipeline keeps between calls. Where it is given, the samples of a
    batch are decided together: what is kept is not cut down."""

    fills: Callable[[Named], bool] | None = None
    """Says of a call that it is no step and only fills what the pipeline keeps; it is left alone."""

    always: Callable[[Named], bool] | None = None
    """Says of a step that it has to be computed: its blocks fill what the pipeline keeps, or run more than once."""

    constant: tuple[str, ...] = ()
    """Modules that only see what stays the same through a run, the prompt or reference pictures and no timestep, by
    path; a star stands for one word: ("context_embedder", "blocks.*.attn2.to_k"). ExactReuse computes them once."""

    for_blocks: tuple[str, ...] = ()
    """Modules whose results only the blocks read, by path as in `constant`: ("x_embedder", "pos_embed"). They are not
    run in a call in which every block is forecast. What the output head reads, such as the timestep's embedding, has to
    run."""

    def __post_init__(self) -> None:
        if not self.transformers or not self.stacks:
            raise ConfigError(f"family '{self.name}' needs at least one transformer class name and one stack of blocks")

    @property
    def moves(self) -> frozenset[str]:
        """Every argument that is another at each step, and what is kept between calls."""
        return _moves(self.latents, self.time, self.moving, self.cache)

    def blocks(self, transformer: nn.Module) -> list[tuple[Stack, nn.Module]]:
        """Every block of `transformer` with its stack, in execution order.

        Raises: UnsupportedModelError where a stack is missing or there are fewer than two blocks.
        """
        found: list[list[tuple[Stack, nn.Module]]] = []
        for stack in self.stacks:
            holder = held_at(transformer, stack.path)
            if holder is None:
                raise UnsupportedModelError(
                    f"{type(transformer).__name__} has no '{stack.path}', which family '{self.name}' expects; "
                    "register an adapter of your own with outpace.register_family"
                )
            if stack.unless is None or not stack.unless(transformer):
                own = holder if stack.span is None else holder[stack.span(transformer)]
                found.append([(stack, block) for block in own])
        order = zip(*found, strict=True) if self.interleaved else found
        blocks = [pair for group in order for pair in group]
        if len(blocks) < 2:
            raise UnsupportedModelError(
                f"{type(transformer).__name__} has {len(blocks)} block(s); "
                "forecasting the last from the first needs two"
            )
        return blocks


@cache
def _moves(latents: str, time: str, moving: tuple[str, ...], cache: str | None) -> frozenset[str]:
    return frozenset({latents, time, *moving, *(() if cache is None else (cache,))})


def keys_of(attention: str) -> tuple[str, ...]:
    """Where a cross-attention at a path makes keys and values of what it attends to, by the names in diffusers."""
    words = ("to_k", "to_v", "to_kv", "norm_k", "add_k_proj", "add_v_proj", "norm_added_k")
    return tuple(f"{attention}.{word}" for word in words)


def held_at(transformer: nn.Module, path: str) -> Any:
    """What `transformer` holds at a dotted path, through attributes and dictionaries of modules; None if nothing."""
    from torch import nn

    holder: Any = transformer
    for name in path.split("."):
        if isinstance(holder, nn.ModuleDict):
            holder = holder[name] if name in holder else None
        else:
            holder = getattr(holder, name, None)
    return holder


def modules_at(transformer: nn.Module, patterns: Sequence[str]) -> dict[str, nn.Module]:
    """Modules of `transformer` by path that one of `patterns` names; a star stands for one word of a path."""
    if not patterns:
        return {}
    words = "|".join(re.escape(pattern).replace(r"\*", r"[^.]+") for pattern in patterns)
    return {path: module for path, module in transformer.named_modules() if re.fullmatch(words, path)}


FAMILIES: Registry[Family] = Registry("model family")


def register_family(family: Family) -> Family:
    """Make `accelerate` understand the transformers that `family` names.

    Raises: ConfigError where the name is taken.
    """
    return FAMILIES.add(family.name, family)


def find_family(transformer: nn.Module) -> Family:
    """The family whose adapter covers `transformer`, by its class or one of its bases.

    Raises: UnsupportedModelError with how to add it, ConflictError for a module that was compiled as a whole.
    """
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
    lists = dict(lists_of(transformer))
    if not lists:
        raise UnsupportedModelError(
            f"{names[0]} cannot be accelerated: it has no list of two or more blocks to forecast across"
        )
    guess = max(lists, key=lambda path: lists[path])
    raise UnsupportedModelError(
        f"{names[0]} cannot be accelerated before it is registered, as no family covers it: "
        f"outpace.register_family(outpace.Family(name='mine', transformers=('{names[0]}',), "
        f"stacks=(outpace.accel.Stack(path='{guess}'),))), and outpace.accel.check_family tells whether that is right "
        "(docs/adding_a_family.md). Its lists of blocks: "
        + ", ".join(f"{path} ({count})" for path, count in lists.items())
    )


def lists_of(transformer: nn.Module) -> Iterator[tuple[str, int]]:
    """Where `transformer` holds lists of two or more modules, and how many: dotted paths, not inside other lists."""
    from torch import nn

    for name, child in transformer.named_children():
        if isinstance(child, nn.ModuleList):
            if len(child) > 1:
                yield name, len(child)
        elif isinstance(child, nn.ModuleDict):
            yield from ((f"{name}.{path}", count) for path, count in lists_of(child))


TEXT_THEN_IMAGE = ("encoder_hidden_states", "hidden_states")
IMAGE_THEN_TEXT = ("hidden_states", "encoder_hidden_states")
