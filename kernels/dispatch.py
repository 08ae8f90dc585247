"""One public function per operation, several backends behind it: who can run, who was chosen, and why not the rest.

A backend says for itself what it cannot do, in words a person can act on. `backend="auto"` takes the first, in order of
preference, that has nothing to say against; a backend asked for by name runs or explains itself in one error.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeVar

from ..errors import ConfigError, MissingDependencyError, UnknownNameError
from ..registry import Registry, suggestion

Made = TypeVar("Made")


class Unfit(Exception):
    """A backend found, once it ran, that it cannot take inputs of this kind; the message says why."""


def _nothing(*_inputs: Any) -> str | None:
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Backend:
    """One implementation of an operation."""

    name: str
    """What it is called in `backend=`, in reports and in messages."""
    run: Callable[..., Any]
    """The implementation; what it takes and returns is said where its operation is defined."""
    missing: Callable[[], str | None] = _nothing
    """Why it cannot run on this machine at all ("triton is not installed: ..."), or None."""
    refuses: Callable[..., str | None] = _nothing
    """Why it cannot take these inputs ("head width 80: has 32, 64, 96, 128"), or None."""
    hesitates: Callable[..., str | None] = _nothing
    """Why it is not to be taken unless asked for by name ("compiling takes 20 s"), or None."""

    def objection(self, *inputs: Any) -> str | None:
        """Why "auto" passes over it for these inputs; None where nothing speaks against it."""
        return self.missing() or self.hesitates(*inputs) or self.refuses(*inputs)


@dataclass(kw_only=True)
class Operation:
    """An operation and its backends, first choice first.

    >>> double = Operation(name="double", backends=[Backend(name="plain", run=lambda x: 2 * x)])
    >>> double.choose(3).run(3)
    6
    """

    name: str
    """What it computes, as one word or two ("sparse attention")."""
    backends: list[Backend] = field(default_factory=list)
    """In order of preference."""
    chosen: dict[tuple[str, str, int], str] = field(default_factory=dict)
    """(device type, dtype, width of the first input) -> name of the backend last chosen for it; for reports."""
    last: str | None = None
    """Name of the backend chosen last."""
    unfit: dict[tuple[Any, ...], str] = field(default_factory=dict)
    """(backend, kind of every input) -> why it gave up when it ran."""

    def names(self) -> list[str]:
        """Names of all backends, first choice first."""
        return [backend.name for backend in self.backends]

    def choose(self, *inputs: Any, backend: str = "auto") -> Backend:
        """The backend that runs for these inputs.

        Args:
            inputs: what the operation's backends are asked about.
            backend: "auto", or the name of one that must run.

        Raises:
            UnknownNameError: no backend has this name.
            MissingDependencyError: the one asked for cannot run on this machine.
            ConfigError: it cannot take these inputs; or, with "auto", none can.
        """
        if backend != "auto":
            return self._record(self._named(backend, *inputs), *inputs)
        for candidate in self.backends:
            if self._objection(candidate, *inputs) is None:
                return self._record(candidate, *inputs)
        reasons = "; ".join(f"{name}: {reason}" for name, reason in self.explain(*inputs))
        raise ConfigError(f"no backend of {self.name} can take these inputs ({reasons})")

    def explain(self, *inputs: Any) -> list[tuple[str, str | None]]:
        """(name, why "auto" passes over it or None) of every backend, in order of preference."""
        return [(backend.name, self._objection(backend, *inputs)) for backend in self.backends]

    def run(self, call: Callable[[Callable[..., Any]], Made], *inputs: Any, backend: str = "auto") -> Made:
        """What `call` makes of the chosen backend's `run`; of the next one's, where that gives up with `Unfit`.

        Inputs of the same kind (type, width, blocks) then go to the next one at once.

        Raises: as `choose`; ConfigError where a backend asked for by name gives up.
        """
        while True:
            chosen = self.choose(*inputs, backend=backend)
            try:
                return call(chosen.run)
            except Unfit as unfit:
                if backend != "auto":
                    raise ConfigError(
                        f"backend '{backend}' of {self.name} cannot take these inputs: {unfit}; use backend='auto'"
                    ) from unfit
                self.unfit[(chosen.name, *map(_kind, inputs))] = str(unfit)

    def _objection(self, backend: Backend, *inputs: Any) -> str | None:
        known = self.unfit.get((backend.name, *map(_kind, inputs))) if self.unfit else None
        return known or backend.objection(*inputs)

    def _named(self, name: str, *inputs: Any) -> Backend:
        found = next((backend for backend in self.backends if backend.name == name), None)
        if found is None:
            raise UnknownNameError(f"{self.name} has no backend '{name}'{suggestion(name, ['auto', *self.names()])}")
        missing = found.missing()
        if missing is not None:
            raise MissingDependencyError(f"backend '{name}' of {self.name} cannot run here: {missing}")
        refusal = found.refuses(*inputs)
        if refusal is not None:
            raise ConfigError(
                f"backend '{name}' of {self.name} cannot take these inputs: {refusal}; use backend='auto'"
            )
        return found

    def _record(self, backend: Backend, *inputs: Any) -> Backend:
        self.last = backend.name
        if inputs and hasattr(inputs[0], "device"):
            first = inputs[0]
            self.chosen[first.device.type, str(first.dtype).removeprefix("torch."), first.shape[-1]] = backend.name
        return backend


def _kind(one: Any) -> Any:
    """What a kernel is compiled for, of one input."""
    if hasattr(one, "dtype") and hasattr(one, "shape"):
        return str(one.device), one.dtype, one.shape[-1:]
    if hasattr(one, "query_block"):
        return one.query_block, one.key_block
    return one if isinstance(one, (bool, int, float, str)) else None


OPERATIONS: Registry[Operation] = Registry("operation")


def deferred(module: str, function: str) -> Callable[..., Any]:
    """`function` of `module`, which is imported at the first call: for backends on heavy or optional packages."""

    def call(*inputs: Any, **options: Any) -> Any:
        return getattr(import_module(module), function)(*inputs, **options)

    call.__name__ = call.__qualname__ = function
    return call


def not_installed(package: str, advice: str) -> Callable[[], str | None]:
    """A `missing` for backends on top of `package`: says so where it cannot be found, without importing it.

    It looks once: every call of an operation asks, and looking reads folders.
    """

    @functools.cache
    def missing() -> str | None:
        return None if find_spec(package) is not None else f"{package} is not installed: {advice}"

    return missing
