"""Counting what a run computes: the real forward pass on the meta device, taken apart by stack and part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ...errors import ConfigError
from ..denoiser import hidden_of
from ..families import find_family
from ..families.family import modules_at
from ..methods.gated_taylor import GatedTaylor
from .account import Account, Ceiling, Kept
from .parts import OUTSIDE, pieces_of
from .recording import Recording, record_call
from .sample import sample_of
from .source import signature_of

SHARES = (1.0, 1 / 2, 1 / 3, 1 / 4, 1 / 6)
"""Shares of the steps that are computed, for which the ceiling is told."""

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def flops(
    model: Any,
    *,
    height: int | None = None,
    width: int | None = None,
    frames: int | None = None,
    steps: int | None = None,
    guidance: bool | None = None,
    text_tokens: int | None = None,
    dtype: str = "bfloat16",
) -> Account:
    """Count what a run of `model` computes, part by part, from its configuration alone.

    The transformer is built and run on the meta device: nothing is downloaded, loaded or computed, and the counts are
    those of the real forward pass.

    Args:
        model: a published model ("flux.1", see `outpace.accel.estimate.MODELS`), a folder written by save_pretrained, a
            diffusers pipeline or a transformer.
        height, width, frames: of the picture or clip; the model's own size where it is known.
        steps: denoising steps.
        guidance: True for two calls a step (classifier-free guidance), False for one; None as its pipeline does.
        text_tokens: of the prompt as the denoiser gets it.
        dtype: "bfloat16", "float16" or "float32", for memory.

    Raises: UnknownNameError, InputError, ConfigError, UnsupportedModelError: with what to do.

    >>> round(flops("dit-xl-2").flops_per_call / 2e9, 1)  # the paper's Gflops are multiply-adds
    118.6
    """
    if dtype not in DTYPES:
        raise ConfigError(f"dtype must be one of {', '.join(DTYPES)}, not {dtype!r}")
    calls = None if guidance is None else 1 + guidance
    sample = sample_of(
        model, height=height, width=width, frames=frames, steps=steps, text_tokens=text_tokens, calls=calls
    )
    found, transformer = sample.model, sample.transformer
    watch = _Watch(transformer)
    try:
        recording = record_call(transformer, sample.inputs)
    finally:
        watch.remove()
    pieces = pieces_of(transformer, recording, sample.latent.tokens)
    whole = sum(piece.flops for piece in pieces)
    family = find_family(transformer)
    idle = recording.without(*modules_at(transformer, family.for_blocks))

    def outside(some: Recording) -> int:
        return sum(
            piece.flops for piece in pieces_of(transformer, some, sample.latent.tokens) if piece.stack == OUTSIDE
        )

    first = sum(piece.flops for piece in pieces_of(transformer, recording.within(watch.first), sample.latent.tokens))
    constant = modules_at(transformer, family.constant)
    unchanging = pieces_of(transformer, recording.within(*constant), sample.latent.tokens)
    parameters = sum(piece.parameters for piece in pieces)
    size, together = DTYPES[dtype].itemsize, signature_of(found.transformer).together
    return Account(
        model=found.name,
        transformer=found.transformer,
        height=sample.height,
        width=sample.width,
        frames=sample.frames,
        steps=sample.steps,
        calls=sample.calls,
        tokens=sample.latent.tokens,
        text_tokens=sample.latent.text,
        dtype=dtype,
        pieces=pieces,
        parameters=parameters,
        weights_bytes=found.copies * parameters * size,
        blocks=watch.blocks,
        flops_per_call=whole,
        flops_per_step=sample.calls * whole,
        flops_total=sample.steps * sample.calls * whole,
        forecast_flops=outside(idle),
        first_block_flops=first,
        constant_flops=sum(piece.flops for piece in unchanging),
        constant_outside_flops=outside(idle.within(*constant)),
        ceilings=ceilings(whole, outside(idle), outside(recording) + first),
        kept=tuple(
            kept(method, setting, watch, size, runs=sample.calls, decide=sample.calls if together else 1)
            for setting, method in {
                **{f"GatedTaylor(max_order={n})": GatedTaylor(max_order=n) for n in (1, 2, 3)},
                'GatedTaylor(gate="budget")': GatedTaylor(gate="budget"),
            }.items()
        ),
        notes=found.notes,
    )


def ceilings(whole: int, idle: int, probing: int, shares: Sequence[float] = SHARES) -> tuple[Ceiling, ...]:
    """The ceiling at each share of computed steps.

    Args:
        whole, idle, probing: FLOPs of a call, of one that runs no block, of one that runs the first.
    """
    return tuple(
        Ceiling(
            computed=share,
            planned=whole / (share * whole + (1 - share) * idle),
            probed=whole / (share * whole + (1 - share) * probing),
        )
        for share in shares
    )


def kept(method: GatedTaylor, setting: str, watch: _Watch, size: int, *, runs: int, decide: int) -> Kept:
    """What `method` remembers: outputs of the last block, and of the first where its gate looks at it.

    Args:
        size: bytes of a number.
        runs: calls of a step; each has a history of its own. Of several denoisers, which take turns by noise level, one
            remembers at a time.
        decide: of these, how many decide by the first block's output, which is kept for them: all that are made in one
            call, of separate ones the first.
    """
    policy = method.policy()
    each, probed = policy.history().capacity, decide if policy.probes else 0
    numbers = runs * watch.numbers["last"] + probed * watch.numbers["first"]
    return Kept(setting=setting, tensors=each * (runs + probed), bytes=each * numbers * size)


class _Watch:
    """Sees how many numbers the outputs of the first and the last block hold that a history would keep."""

    def __init__(self, transformer: nn.Module) -> None:
        found = find_family(transformer).blocks(transformer)
        paths = {id(module): path for path, module in transformer.named_modules()}
        self.blocks, self.first = len(found), paths[id(found[0][1])]
        self.numbers: dict[str, int] = {}
        self._hooks = [
            block.register_forward_hook(
                lambda _, __, result, name=name, stack=stack: self.numbers.update(
                    {name: hidden_of(result, stack).numel()}
                )
            )
            for name, (stack, block) in (("first", found[0]), ("last", found[-1]))
        ]

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()
