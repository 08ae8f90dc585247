"""What the blocks of a transformer give, and the loss that asks a student's blocks to give what the teacher's do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import ConfigError
from ..denoiser import hidden_of
from ..families import find_family
from .block_mixture import find_groups


@contextmanager
def block_outputs(transformer: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the picture's tokens behind every block, in execution order, of the calls until the end of the block.

    >>> with block_outputs(teacher) as wanted, torch.no_grad():  # doctest: +SKIP
    ...     target = teacher(**call)
    """
    collected: list[Tensor] = []
    hooks = []
    for stack, block in find_family(transformer).blocks(transformer):

        def note(_: nn.Module, __: Any, result: Any, stack: Any = stack) -> None:
            collected.append(hidden_of(result, stack))

        hooks.append(block.register_forward_hook(note))
    try:
        yield collected
    finally:
        for hook in hooks:
            hook.remove()


def group_ends(transformer: nn.Module) -> list[int]:
    """Places of the last block of every group, among `block_outputs`: what a mixture of blocks is held to."""
    blocks = [block for _, block in find_family(transformer).blocks(transformer)]
    places = {id(block): place for place, block in enumerate(blocks)}
    return [places[id(group.members[-1])] for group in find_groups(transformer)]


def kept_blocks(student: nn.Module, blocks: int) -> list[int]:
    """Which of the teacher's `blocks` blocks each of the student's stands for: all that were not dropped."""
    dropped = getattr(student, "config", {}).get("conversion", {}).get("dropped", ())
    return [place for place in range(blocks) if place not in dropped]


def held_blocks(student: nn.Module) -> list[int]:
    """Places among the student's blocks that can be held to the teacher's: all but those inside a group, of which the
    last stands for what the group as a whole gives."""
    blocks = [block for _, block in find_family(student).blocks(student)]
    inside = {id(block) for group in find_groups(student) for block in group.members[:-1]}
    return [place for place, block in enumerate(blocks) if id(block) not in inside]


def held_samples(student: nn.Module, place: int, samples: int) -> list[int] | None:
    """Of the call before, the samples at which the student's block at `place` is held to the teacher's; None for all.

    A noise level that leaves it out is held to what stands in for it, and to nothing inside of consecutive ones.
    """
    block = find_family(student).blocks(student)[place][1]
    scheduled = vars(block).get("scheduled")
    if scheduled is None:
        return None
    ends = {int(level) for level, _ in block.stand_ins.named_children()}  # pyright: ignore
    return [row for row, level in enumerate(scheduled.levels(samples)) if level is None or level in ends]


def feature_loss(distance: Tensor, teacher: Sequence[Tensor], student: Sequence[Tensor]) -> Tensor:
    """Squared distance of block outputs, every block weighted so that it counts about as much as the output's.

    w = (output's distance / block's distance) * (mean norm of the teacher's blocks / this block's norm), as constants.

    Source: Dense2MoE (Zheng et al., ICCV 2025, arXiv:2510.09094), feature and group-feature losses.

    Args:
        distance: mean squared distance between the outputs of teacher and student.
        teacher, student: block outputs, one for each that is compared.

    Raises: ConfigError where they are not as many.
    """
    if len(teacher) != len(student) or not teacher:
        raise ConfigError(f"{len(teacher)} block outputs of the teacher cannot be compared with {len(student)}")
    norms = torch.stack([wanted.detach().float().norm() for wanted in teacher]).clamp_min(1e-12)
    total = distance.new_zeros(())
    for wanted, given, norm in zip(teacher, student, norms, strict=True):
        apart = (given.float() - wanted.detach().float()).square().mean()
        weight = distance.detach() / apart.detach().clamp_min(1e-12) * (norms.mean() / norm)
        total = total + weight * apart
    return total
