"""Several processes that share one transformer decide together: a block runs on all of them or on none.

Blocks of a transformer that is spread over processes talk to each other: context parallelism exchanges keys and values,
sharded weights are gathered. A process that passes over a block the others run leaves them waiting, or pairs with
another block's exchange and makes wrong numbers of it. So decisions are agreed on before each block that they are
about, and what one sample's error is made of is added up over the processes that hold parts of the sample, so that they
decide as one process would. Processes that each hold a whole transformer (data parallel) exchange nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from ..errors import ConflictError
from ..kernels.forecast import error_sums, ratio
from ..kernels.precision import widened, widest

COMPUTED, ASKED, FORECAST = 2, 1, 0
"""What a sample needs of the blocks: all of them, the first to be asked about the rest, none."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """The processes that one transformer is spread over."""

    groups: tuple[Any, ...]
    """Process groups; agreed on in one after the other."""
    parts: Any = None
    """The group whose processes hold parts of every sample's tokens, in order; None where samples are whole."""
    apart: bool = False
    """True where processes have samples of their own."""
    branches: bool = False
    """True where each process computes a branch of the guidance."""


def ranks_of(transformer: nn.Module) -> Ranks | None:
    """How processes share `transformer`, or None where this one has it alone."""
    if not dist.is_available() or not dist.is_initialized():
        return None
    from torch.distributed.tensor import DTensor

    meshes = {p.device_mesh for p in transformer.parameters() if isinstance(p, DTensor)}
    groups = [mesh.get_group(dim) for mesh in meshes for dim in range(mesh.ndim)]
    config = getattr(getattr(transformer, "_parallel_config", None), "context_parallel_config", None)
    parts = None if config is None else config._flattened_mesh.get_group()
    if parts is not None:
        groups.append(parts)
    return Ranks(tuple(groups), parts, bool(meshes)) if groups else None


def whole_copies(transformer: nn.Module, group: Any = None) -> Ranks:
    """Processes with a whole copy each that are to decide as one, about the branches of the same samples.

    Raises: ConflictError where there are no processes, or `transformer` is spread over them, so that they do already.
    """
    if not dist.is_available() or not dist.is_initialized():
        raise ConflictError("this process is alone: call torch.distributed.init_process_group() before")
    if ranks_of(transformer) is not None:
        raise ConflictError("this transformer is spread over processes, which decide together already")
    return Ranks((dist.group.WORLD if group is None else group,), branches=True)


def agree(needs: Sequence[int], ranks: Ranks, device: torch.device) -> list[int]:
    """The most that any process needs: of each sample, or of all where processes have samples of their own."""
    most = torch.tensor([max(needs)] if ranks.apart else list(needs), device=device)
    for group in ranks.groups:
        dist.all_reduce(most, dist.ReduceOp.MAX, group=group)
    found = most.tolist()
    return found * len(needs) if ranks.apart else found


def whole_error(
    values: Sequence[torch.Tensor], weights: Sequence[float], truth: torch.Tensor, ranks: Ranks | None
) -> torch.Tensor:
    """The relative error of a combination over all parts of a sample, wherever they lie: a float32 scalar."""
    sums = error_sums(values, weights, truth)
    if ranks is None or ranks.parts is None:
        return ratio(sums, truth.numel())
    # The count goes along: where tokens do not divide evenly, parts differ in length.
    total = torch.cat([widened(sums), sums.new_tensor([truth.numel()], dtype=widest(sums.device))])
    dist.all_reduce(total, group=ranks.parts)
    return ratio(total[:2].float(), int(total[2]))


def mean_over(values: torch.Tensor, ranks: Ranks | None) -> torch.Tensor:
    """The mean of `values`, whatever they are, over the processes that hold the parts of a sample."""
    if ranks is None or ranks.parts is None:
        return values
    dist.all_reduce(values, group=ranks.parts)
    return values / dist.get_world_size(ranks.parts)


def every(stride_of: int, tokens: int, ranks: Ranks | None) -> slice:
    """Which of this process's tokens are among about `stride_of` that lie evenly over the whole sample."""
    if ranks is None or ranks.parts is None:
        return slice(None, None, max(1, tokens // stride_of))
    count = dist.get_world_size(ranks.parts)
    stride = max(1, tokens * count // stride_of)
    return slice(-dist.get_rank(ranks.parts) * tokens % stride, None, stride)
