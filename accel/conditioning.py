"""What a run was asked for, beside latents and timestep: embeddings, masks, guidance, control, adapters.

A forecast holds as long as these stay the same. A tensor that is the same memory, unwritten since, needs no look at its
values. Of another (pipelines build some anew at each step) some hundred values are compared where it lies, and all the
answers of a call are read together: an ordinary step waits for no device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .families import Family

FEWEST_VALUES, MOST_VALUES = 256, 4096
"""Values of a tensor that are compared: all up to so many, else one of every row and at least the former."""

JUMP, LEAST_JUMP = 4.0, 0.1
"""A ControlNet's residuals follow the latents. They have changed in kind where they move by this factor more than they
did at the step before, and by this share of themselves."""

Leaves = dict[str, Any]
"""Everything in the arguments that is no container, by its path: "attention_kwargs.scale"."""


@dataclass(slots=True)
class Seen:
    """A tensor as it was given."""

    tensor: Tensor
    """The object itself: while it is held, nothing else can lie in its memory."""
    version: int | None
    values: Tensor

    @staticmethod
    def of(tensor: Tensor) -> Seen:
        return Seen(tensor, version_of(tensor), some_values(tensor))

    def unwritten(self, other: Tensor) -> bool:
        """True where `other` is this memory and nobody wrote to it since; no value is looked at."""
        if self.version is None or version_of(other) != self.version:
            return False
        mine = self.tensor
        if other is mine:
            return True
        try:
            return mine.data_ptr() == other.data_ptr() != 0 and mine.stride() == other.stride()
        except RuntimeError:  # a tensor without memory of its own, such as one under a functional transform
            return False

    def alike(self, other: Tensor) -> bool:
        """True where shape, type and device are the same."""
        mine = self.tensor
        return mine.shape == other.shape and mine.dtype == other.dtype and mine.device == other.device


@dataclass(slots=True)
class Residuals:
    """A ControlNet's residuals at the step before."""

    name: str
    """The argument that carries them."""
    acts: bool
    values: Tensor
    moved: float | None = None
    """By what share of themselves they last moved."""


@dataclass(slots=True)
class Record:
    """What one guidance branch of one denoiser was last given."""

    plain: Leaves = field(default_factory=dict)
    tensors: dict[str, Seen] = field(default_factory=dict)
    residuals: Residuals | None = None
    state: tuple[Any, ...] = ()
    """What is set on the transformer itself, such as adapters."""
    generation: int = 0
    """Counts the changes."""


class Conditioning:
    """What the branches of one run are given, call by call."""

    def __init__(self) -> None:
        self._records: dict[tuple[str, str], Record] = {}
        self._generations = 0

    def clear(self) -> None:
        """Forget the run."""
        self._records.clear()

    def look(
        self,
        denoiser: str,
        branch: str,
        named: Mapping[str, Any],
        family: Family,
        state: tuple[Any, ...] = (),
        others: Sequence[str] = (),
    ) -> tuple[str, int, str]:
        """The branch that this call belongs to, the generation of what it is given, and what changed in it.

        Args:
            denoiser: name of the transformer that is called.
            branch: the branch by its name, or by its place in the step.
            named: the call's arguments.
            family: of the transformer; it names those that are others at every step by themselves.
            state: what is set on the transformer itself.
            others: branches that it may be instead, where places name them: guidance that starts or stops inside a run
                moves the places of the others.
        """
        plain, tensors, residuals = taken_apart(named, family)
        record = self._records.get((denoiser, branch))
        changed = [] if record is None else differences(record, plain, tensors, state)
        if record is None or changed:
            for other in others:
                known = self._records.get((denoiser, other))
                if other != branch and known is not None and not differences(known, plain, tensors, state):
                    record, branch, changed = known, other, []
                    break
        begun = record is None or bool(changed)
        if record is None or changed:
            self._generations += 1
            record = Record(generation=self._generations)
            self._records[denoiser, branch] = record
        record.plain, record.state = plain, state
        for name, tensor in tensors.items():
            seen = record.tensors.get(name)
            if seen is None:
                record.tensors[name] = Seen.of(tensor)
            elif seen.tensor is not tensor or seen.version != version_of(tensor):
                seen.tensor, seen.version = tensor, version_of(tensor)
        moved = self._control(record, residuals)
        if moved and not begun:
            changed = [moved]
            self._generations += 1
            record.generation = self._generations
        return branch, record.generation, f"{changed[0]} changed" if changed else ""

    def _control(self, record: Record, residuals: dict[str, Tensor]) -> str:
        """The name of a ControlNet's residuals that began, ended or jumped; one read of the device."""
        before = record.residuals
        if not residuals:
            record.residuals = None
            return before.name if before is not None and before.acts else ""
        name = next(iter(residuals)).split(".")[0]
        device = next(iter(residuals.values())).device
        values = torch.cat([some_values(tensor).to(device, torch.float32) for tensor in residuals.values()])
        acts = torch.stack([tensor.any().to(device) for tensor in residuals.values()]).any()
        measured = [acts.float(), values.abs().mean()]
        comparable = before is not None and before.values.shape == values.shape
        if before is not None and comparable:
            measured.append((values - before.values).abs().mean())
        read = torch.stack(measured).tolist()
        now = Residuals(name, bool(read[0]), values)
        record.residuals = now
        if before is None:
            return name if now.acts else ""
        if not comparable or now.acts != before.acts:
            return name
        now.moved = read[2] / read[1] if read[1] else 0.0
        jumped = before.moved is not None and now.moved > max(JUMP * before.moved, LEAST_JUMP)
        if jumped:
            now.moved = before.moved
        return name if jumped else ""


def differences(record: Record, plain: Leaves, tensors: Mapping[str, Tensor], state: tuple[Any, ...]) -> list[str]:
    """Names of the arguments that are not what `record` holds; at most one read of each device."""
    if record.state != state:
        return ["adapters"]
    if record.plain.keys() != plain.keys() or record.tensors.keys() != tensors.keys():
        odd = (record.plain.keys() | record.tensors.keys()) ^ (plain.keys() | tensors.keys())
        return sorted({name.split(".")[0] for name in odd}) or ["inputs"]
    for name, value in plain.items():
        if not same_plain(record.plain[name], value):
            return [name.split(".")[0]]
    asked: dict[torch.device, list[tuple[str, Tensor]]] = {}
    for name, tensor in tensors.items():
        seen = record.tensors[name]
        if not seen.alike(tensor):
            return [name.split(".")[0]]
        if not seen.unwritten(tensor):
            other = some_values(tensor)
            differ = ((other != seen.values) & ~((other != other) & (seen.values != seen.values))).any()
            asked.setdefault(tensor.device, []).append((name, differ))
    found = []
    for entries in asked.values():
        answers = torch.stack([differ for _, differ in entries]).tolist()
        found += [name.split(".")[0] for (name, _), differ in zip(entries, answers, strict=True) if differ]
    return found


def taken_apart(named: Mapping[str, Any], family: Family) -> tuple[Leaves, dict[str, Tensor], dict[str, Tensor]]:
    """Plain values, tensors, and a ControlNet's residuals among the arguments of a call, each by its path."""
    plain: Leaves = {}
    tensors: dict[str, Tensor] = {}
    residuals: dict[str, Tensor] = {}
    for name, value in named.items():
        if value is None:
            continue
        if name in family.moves:
            plain[name] = True  # that it is given counts, not what it is
            continue
        for path, leaf in leaves(name, value):
            if not isinstance(leaf, Tensor):
                plain[path] = leaf
            elif name in family.residuals:
                residuals[path] = leaf
            else:
                tensors[path] = leaf
    return plain, tensors, residuals


def leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Every value inside containers with its path."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from leaves(f"{path}.{key}", item)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from leaves(f"{path}.{index}", item)
    else:
        yield path, value


def same_plain(one: Any, other: Any) -> bool:
    """Whether two values that are no tensors are the same: numbers and names by value, anything else by identity."""
    if one is other:
        return True
    simple = (bool, int, float, str, bytes, torch.dtype, torch.device)
    return isinstance(one, simple) and isinstance(other, simple) and one == other


def version_of(tensor: Tensor) -> int | None:
    """How often torch saw the tensor's memory written to; None where it does not count (inference mode)."""
    return None if tensor.is_inference() else tensor._version


def some_values(tensor: Tensor) -> Tensor:
    """All values of a small tensor, of a large one some from every row, as a copy. Shapes: any to (n)."""
    tensor = tensor.detach()
    if tensor.layout is not torch.strided:
        return tensor.new_zeros(0)
    if tensor.numel() <= MOST_VALUES:
        return tensor.reshape(-1).clone()
    width = tensor.shape[-1]
    rows = tensor.numel() // width
    if rows <= MOST_VALUES:  # none is passed over: a change may lie in one
        row = torch.arange(rows, device=tensor.device).repeat_interleave(-(-FEWEST_VALUES // rows))
    else:
        row = torch.arange(MOST_VALUES, device=tensor.device) * rows // MOST_VALUES
    place = torch.arange(len(row), device=tensor.device)
    column = (place * 7919) % width
    index: list[Tensor] = [column]
    for size in reversed(tensor.shape[:-1]):
        index.append(row % size)
        row = row // size
    return tensor[tuple(reversed(index))]
