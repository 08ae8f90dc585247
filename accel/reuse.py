"""Modules that are given the same at every step of a run are computed once in it: text projections, keys and values of
text, blocks that only see reference pictures.

Nothing is taken on trust. What a module is given is held against what it was given before: the same memory, unwritten
since, or equal in every value; anything else, and any doubt, means computing. So a wrong name in a family's data costs
a comparison and never a picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UnsupportedModelError
from .conditioning import Seen, leaves, same_plain, version_of
from .denoiser import Denoiser, Interception
from .families.family import modules_at
from .inlets import is_watched
from .part import Current, Part, Shared
from .trace import Call

GIGABYTE = 1e9
PLAIN = (type(None), bool, int, float, str, torch.dtype, torch.device)
"""What may be given beside tensors: values that nobody can change in place."""

Verdicts = dict[tuple[int, int], tuple[Tensor, bool]]
"""What was found of pairs of tensors in the call under way; the tensor is kept, so that no other takes its address."""


@dataclass(slots=True)
class Reused:
    """What came of it, for the trace."""

    calls: int = 0
    """Calls of modules that are watched."""
    reused: int = 0
    """Of them, those that were not made."""
    most_bytes: int = 0
    """The most that was kept at a time."""

    def clear(self) -> None:
        self.calls = self.reused = self.most_bytes = 0

    def as_dict(self) -> dict[str, int]:
        return {"calls": self.calls, "reused": self.reused, "most_bytes": self.most_bytes}

    def line(self) -> str:
        """For a person."""
        return (
            f"  exact reuse: {self.reused} of {self.calls} calls of what does not change in a run were left out; "
            f"{self.most_bytes / 1e6:.3g} MB kept"
        )


@dataclass(slots=True)
class Result:
    """What a module made of what it was given."""

    generation: int
    """Of what the branch is asked for and of the adapters; of another one it does not hold."""
    given: dict[str, Any] = field(default_factory=dict)
    """Every tensor (as it was seen) and every plain value, by its path in the arguments."""
    output: Any = None
    versions: tuple[int | None, ...] = ()
    """Of the output's tensors, so that it shows when somebody writes to them."""
    bytes: int = 0
    moves: bool = False
    """True where it was given something else in the same run: it is computed from then on."""

    def let_go(self) -> int:
        """Keep nothing more; the bytes that are free now."""
        freed, self.bytes = self.bytes, 0
        self.given, self.output, self.versions, self.moves = {}, None, (), True
        return freed


class Reuse(Part):
    """What the family of a transformer names constant, computed once a run, guidance branch and set of adapters.

    Args:
        gigabytes: of results that are kept at most.
    """

    place = "reuse"
    remembers = ("_results", "_bytes", "_made", "_verdicts")

    def __init__(self, gigabytes: float, shared: Shared) -> None:
        super().__init__(shared)
        self.most_bytes = int(gigabytes * GIGABYTE)
        self.counts = shared.trace.reuse = Reused()
        self._sites: list[Interception] = []

    def start(self) -> None:
        self._results: dict[tuple[str, str, str, int], Result] = {}
        self._bytes = 0
        self._made: Counter[str] = Counter()
        self._verdicts: Verdicts = {}

    def attach(self, denoiser: Denoiser) -> None:
        """Watch what stays the same. Raises: UnsupportedModelError where the family names nothing of it."""
        found = modules_at(denoiser.transformer, denoiser.family.constant)
        if not found:
            raise UnsupportedModelError(
                f"nothing in {type(denoiser.transformer).__name__} is known to be given the same at every step of a "
                f"run: name it in Family(constant=...) of family '{denoiser.family.name}'"
            )
        if denoiser.ranks is not None:
            self.shared.trace.warn(f"{denoiser.name} is spread over several processes, so nothing of it is reused")
            return
        for path, module in found.items():
            self._sites.append(Interception(module, partial(self._around, denoiser, path)))

    def begin(self, current: Current) -> None:
        self._made.clear()
        self._verdicts.clear()

    def finish(self, current: Current, call: Call | None) -> Call | None:
        self._verdicts.clear()
        return call

    def abort(self) -> None:
        self._verdicts.clear()

    def release(self) -> None:
        """Forget everything remembered of the run; the tensors are freed."""
        self.start()

    def leave(self, denoiser: str) -> None:
        """Free what is remembered of a transformer that is not called any more."""
        for key in [key for key in self._results if key[0] == denoiser]:
            self._bytes -= self._results.pop(key).bytes

    def detach(self) -> None:
        for site in self._sites:
            site.remove()
        self._sites.clear()

    def _around(self, denoiser: Denoiser, path: str, site: Interception, *args: Any, **kwargs: Any) -> Any:
        """One call of a module that is watched."""
        current = self.shared.current
        # A block that runs for some rows only cuts its arguments anew; what is kept is of all of them.
        if current is None or current.denoiser is not denoiser or current.rows is not None:
            return site.proceed(*args, **kwargs)
        self.counts.calls += 1
        key = (denoiser.name, current.moment.branch, path, self._made[path])
        self._made[path] += 1
        known = self._results.get(key)
        if known is not None and known.generation == current.generation:
            if known.moves:
                return site.proceed(*args, **kwargs)
            if unwritten(known) and given_again(known.given, args, kwargs, self._verdicts):
                self.counts.reused += 1
                return known.output
            self._bytes -= known.let_go()
            return site.proceed(*args, **kwargs)
        if known is not None:
            self._bytes -= known.let_go()
        output = site.proceed(*args, **kwargs)
        self._results[key] = self._keep(current.generation, site.module, args, kwargs, output)
        return output

    def _keep(self, generation: int, module: nn.Module, args: Sequence[Any], kwargs: Any, output: Any) -> Result:
        """The result to keep, or one that says to compute from now on."""
        given, tensors = seen(args, kwargs), tensors_in(output)
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors or ())
        if given is None or not tensors or is_watched(module) or self._bytes + size > self.most_bytes:
            return Result(generation, moves=True)
        versions = tuple(version_of(tensor) for tensor in tensors)
        if None in versions:
            return Result(generation, moves=True)
        self._bytes += size
        self.counts.most_bytes = max(self.counts.most_bytes, self._bytes)
        return Result(generation, given, output, versions, size)


def seen(args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any] | None:
    """What is given, to be recognised; None where that cannot be."""
    found: dict[str, Any] = {}
    for path, leaf in leaves("", [args, kwargs]):
        if isinstance(leaf, Tensor):
            if version_of(leaf) is None or leaf.layout is not torch.strided:
                return None
            found[path] = Seen(leaf, version_of(leaf), leaf)
        elif isinstance(leaf, PLAIN):
            found[path] = leaf
        else:
            return None
    return found if any(isinstance(value, Seen) for value in found.values()) else None


def given_again(given: dict[str, Any], args: Sequence[Any], kwargs: dict[str, Any], verdicts: Verdicts) -> bool:
    """Whether a call is given just what an earlier one was."""
    found = dict(leaves("", [args, kwargs]))
    if found.keys() != given.keys():
        return False
    for path, before in given.items():  # what needs no look at values first
        if not isinstance(before, Seen):
            if not same_plain(before, found[path]):
                return False
        elif not isinstance(found[path], Tensor) or not before.alike(found[path]):
            return False
    return all(equal(before, found[path], verdicts) for path, before in given.items() if isinstance(before, Seen))


def equal(before: Seen, now: Tensor, verdicts: Verdicts) -> bool:
    """Whether a tensor is as it was: the same memory, unwritten, or, once for all who are given it, equal in value."""
    if before.unwritten(now):
        return True
    if version_of(before.tensor) != before.version:  # what it was is gone
        return False
    known = verdicts.get((id(before.tensor), id(now)))
    if known is None:
        known = verdicts[id(before.tensor), id(now)] = (now, torch.equal(before.tensor, now))
    return known[1]


def unwritten(result: Result) -> bool:
    """Whether nobody wrote to a result since it was made."""
    now = tuple(version_of(tensor) for tensor in tensors_in(result.output) or ())
    return now == result.versions


def tensors_in(output: Any) -> list[Tensor] | None:
    """The tensors of a result that may be handed out again: a tensor, or a tuple of them; None of anything else."""
    parts = output if isinstance(output, tuple) else (output,)
    if not all(part is None or isinstance(part, Tensor) for part in parts):
        return None
    return [part for part in parts if part is not None]
