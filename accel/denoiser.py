"""One transformer under control: its calls, and the calls of its blocks, pass through here.

A call is intercepted at `module.__call__`, through the attribute that `nn.Module.compile` uses for the same purpose. So
hooks of diffusers, accelerate and PEFT, which sit in `forward`, keep working inside; a block compiled with
`fullgraph=True` stays one graph, because the decision falls outside it; a skipped block does not even load its
offloaded weights; and neither a class nor `forward` nor a parameter name is touched.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

import torch
from torch import nn

from ..errors import ConflictError, UnsupportedModelError
from .adapters import AdapterWatch
from .families import FAMILIES, Family, Stack
from .ranks import ranks_of
from .streams import plain_batch
from .tap import Tap

Proceed = Callable[..., Any]

DENOISERS = ("transformer", "transformer_2", "unconditional_transformer")
"""Attributes of pipelines that hold one."""

WHOLE = (
    "{name} is compiled as a whole, which freezes its loop over blocks; "
    "compile the blocks instead: transformer.compile_repeated_blocks(fullgraph=True)"
)


class Site(Protocol):
    """The call of one module, for whoever decides about it."""

    def named(self, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a call by name."""
        ...

    def proceed(self, *args: Any, **kwargs: Any) -> Any:
        """Make the call."""
        ...


UNCOMPILED = (
    "outpace accelerates this transformer and decides at every step which of its blocks run, so it is no one graph: "
    "compile the blocks instead, transformer.compile_repeated_blocks(fullgraph=True)"
)
"""What torch says of a transformer that is compiled with fullgraph=True around its acceleration."""


class Interception:
    """Puts `around(proceed, *args, **kwargs)` in the place of one module's call, until `remove`."""

    def __init__(self, module: nn.Module, around: Callable[..., Any], owner: Any = None) -> None:
        self.module, self.around, self.owner = module, around, owner
        self.inner: Proceed | None = None
        self.passed_over: Proceed | None = None
        """A compiled call that is put back by `remove`, and not used until then."""
        # What is decided here is decided outside of compiled graphs; a compiler that comes by calls it as it is.
        self._uncompiled = torch.compiler.disable(self._call, reason=UNCOMPILED) if owner is not None else None
        self.names = list(inspect.signature(module.forward).parameters)
        self.ensure()

    def ensure(self) -> None:
        """Take the place back where `module.compile` took it since, keeping the compiled call inside."""
        if self.module._compiled_call_impl is not self:
            self.inner = self.module._compiled_call_impl
            self.module._compiled_call_impl = self  # pyright: ignore[reportAttributeAccessIssue]

    def take_back(self) -> bool:
        """Take the place back from a call that was compiled as a whole since, and run uncompiled; whether it was."""
        taken = self.module._compiled_call_impl
        if taken is self or taken is None:
            return False
        self.inner, self.passed_over = None, taken
        self.module._compiled_call_impl = self  # pyright: ignore[reportAttributeAccessIssue]
        return True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._uncompiled is not None and torch.compiler.is_compiling():
            return self._uncompiled(*args, **kwargs)
        return self.around(self, *args, **kwargs)

    def _call(self, *args: Any, **kwargs: Any) -> Any:
        return self.around(self, *args, **kwargs)

    def proceed(self, *args: Any, **kwargs: Any) -> Any:
        """The module's own call, compiled where it was compiled."""
        return (self.inner or self.module._call_impl)(*args, **kwargs)

    def named(self, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a call by name."""
        return {**dict(zip(self.names, args, strict=False)), **kwargs}

    def remove(self) -> None:
        if self.module._compiled_call_impl is self:
            before = self.passed_over or self.inner
            if before is None:
                del self.module.__dict__["_compiled_call_impl"]
            else:
                self.module._compiled_call_impl = before


class ContextReader:
    """Reads the name of the `cache_context` in force; hears when diffusers resets its caches at the end of a run.

    It listens where pipelines call, rather than as a hook in `forward`: a hook taken out from under those that offload
    registered later would take theirs along.
    """

    def __init__(self, transformer: nn.Module, on_reset: Callable[[], None]) -> None:
        self._local, self._on_reset = threading.local(), on_reset
        self._taps = [Tap(transformer, "cache_context", self._enter)]
        if hasattr(transformer, "_reset_stateful_cache"):
            self._taps.append(Tap(transformer, "_reset_stateful_cache", self._reset))

    @property
    def name(self) -> str | None:
        """The context that this thread is in, or None."""
        return getattr(self._local, "name", None)

    @contextmanager
    def _enter(self, inner: Callable[..., Any], name: str, *args: Any, **kwargs: Any) -> Iterator[None]:
        before, self._local.name = self.name, str(name)
        try:
            with inner(name, *args, **kwargs):
                yield
        finally:
            self._local.name = before

    def _reset(self, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        inner(*args, **kwargs)
        self._on_reset()

    def remove(self) -> None:
        for tap in self._taps:
            tap.remove()


class Rows:
    """Runs blocks for some rows of a batch: cuts the arguments down, puts the results back among the inputs."""

    def __init__(self, rows: list[int], batch: int, device: torch.device) -> None:
        self.rows, self.batch = rows, batch
        self.index = torch.tensor(rows, device=device)
        self._constant: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._latest: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def index_in(self, size: int, stack: Stack, name: str) -> torch.Tensor | None:
        """Places of the rows along an axis of `size` in argument `name`, or None where that is not the batch."""
        if size == self.batch:
            return self.index
        if stack.folded and size % self.batch == 0:  # several rows a sample, one after the other
            count = size // self.batch
            return (self.index[:, None] * count + torch.arange(count, device=self.index.device)).flatten()
        if name in stack.trailing and size == self.batch + 1:
            return torch.cat([self.index, self.index.new_tensor([self.batch])])
        return None

    def cut(self, value: Any, stack: Stack, name: str) -> Any:
        """`value` with every tensor that carries the batch cut down to the rows."""
        if isinstance(value, torch.Tensor):
            axis = stack.axes.get(name, 0)
            if axis is None or value.ndim <= axis:
                return value
            known = self._latest.get(id(value)) or self._constant.get(id(value))
            if known is not None:
                return known[1]
            index = self.index_in(value.shape[axis], stack, name)
            if index is None:
                return value
            part = value.index_select(axis, index.to(value.device))
            if name not in stack.returns:  # the same modulation and mask go into every block
                self._constant[id(value)] = (value, part)
            return part
        if isinstance(value, dict):
            return {key: self.cut(item, stack, name) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(self.cut(item, stack, name) for item in value)
        return value

    def run(self, proceed: Proceed, named: dict[str, Any], stack: Stack) -> Any:
        part = {name: value if name in stack.shared else self.cut(value, stack, name) for name, value in named.items()}
        result = proceed(**part)
        outputs = result if isinstance(result, tuple) else (result,)
        whole: list[Any] = []
        latest: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        for name, output in zip(stack.returns, outputs, strict=True):
            before = named.get(name)
            if output is None or before is None:
                whole.append(output)
                continue
            axis = stack.axes.get(name, 0) or 0
            if before.shape[axis] == 1:  # one row for all, such as one empty prompt, which modulation spreads
                before = before.expand(*before.shape[:axis], self.batch, *before.shape[axis + 1 :])
            index = self.index_in(before.shape[axis], stack, name)
            if index is None:
                raise UnsupportedModelError(
                    f"argument '{name}' of a block of '{stack.path}' has {before.shape[axis]} rows in a batch of "
                    f"{self.batch}: say in its Stack how the batch lies (axes, folded)"
                )
            full = before.clone()
            full.index_copy_(axis, index.to(full.device), output.to(full.dtype))
            latest[id(full)] = (full, output)
            whole.append(full)
        self._latest = latest
        return tuple(whole) if isinstance(result, tuple) else whole[0]


def echo(named: dict[str, Any], stack: Stack) -> Any:
    """What a block that is skipped returns: the arguments its result would have replaced."""
    values = [named.get(name) for name in stack.returns]
    return tuple(values) if len(values) > 1 else values[0]


def hidden_of(result: Any, stack: Stack) -> torch.Tensor:
    """The picture's tokens in a block's result."""
    return result[stack.returns.index(stack.hidden)] if isinstance(result, tuple) else result


class Denoiser:
    """One transformer whose calls go to `driver`, which decides what runs.

    Args:
        name: the pipeline's name for it ("transformer", "transformer_2").
        driver: has `call(denoiser, proceed, args, kwargs)`, `block(denoiser, index, proceed, args, kwargs)` and
            `reset()`.
    """

    def __init__(self, name: str, transformer: nn.Module, family: Family, driver: Any) -> None:
        if isinstance(transformer._compiled_call_impl, Interception):
            raise ConflictError(
                f"{name} is accelerated already: restore() that handle first, or outpace.restore(pipe) where it is lost"
            )
        if transformer._compiled_call_impl is not None or compiled_forward(transformer) is not None:
            raise ConflictError(WHOLE.format(name=name))
        self.name, self.transformer, self.family = name, transformer, family
        self.ranks = ranks_of(transformer)
        """The processes that it is spread over, or None."""
        self.adapters = AdapterWatch(transformer)
        self._compiled: Any = None
        """A compiled `forward` that is put back by `remove`."""
        self._compile = Tap(transformer, "compile", self._refuse)
        self.left_to = ""
        """Why nothing is done here, where another cache is at work."""
        self.weight = next(transformer.parameters(), None)
        """One of its weights, to see in which type it computes."""
        self.idle = False
        """True in a call in which no block runs."""
        blocks = family.blocks(transformer)
        self.stacks = [stack for stack, _ in blocks]
        self.context: ContextReader | None = None
        if hasattr(transformer, "cache_context"):
            self.context = ContextReader(transformer, driver.reset)
        self.call = Interception(transformer, lambda site, *a, **k: driver.call(self, site, a, k), driver)
        self.blocks = [
            Interception(block, partial(self._block, driver, index), driver) for index, (_, block) in enumerate(blocks)
        ]
        for site, stack in zip(self.blocks, self.stacks, strict=True):
            missing = [n for n in (stack.hidden, *stack.returns) if n not in site.names]
            if missing and not any(p in site.names for p in ("args", "kwargs")):
                self.remove()
                raise UnsupportedModelError(
                    f"{type(site.module).__name__} takes {', '.join(site.names)}; family '{family.name}' expects "
                    f"{', '.join(missing)}: correct its Stack"
                )

    def _block(self, driver: Any, index: int, site: Interception, *args: Any, **kwargs: Any) -> Any:
        """One call of a block; where none runs, nobody is asked between the first and the last."""
        if self.idle and 0 < index < len(self.blocks) - 1:
            return echo(site.named(args, kwargs), self.stacks[index])
        return driver.block(self, index, site, args, kwargs)

    def keeps(self, named: dict[str, Any]) -> bool:
        """True in a call that is given keys and values which the pipeline keeps between calls."""
        return self.family.cache is not None and named.get(self.family.cache) is not None

    def only_fills(self, named: dict[str, Any]) -> bool:
        """True for a call that is no step and only fills what the pipeline keeps."""
        return self.family.fills is not None and self.family.fills(named)

    def must_compute(self, named: dict[str, Any]) -> str:
        """Why this step has to be computed whatever a method says, or an empty string."""
        return "no step to skip" if self.family.always is not None and self.family.always(named) else ""

    def ensure(self) -> None:
        """Take back every place that a later `compile_repeated_blocks` took."""
        for site in self.blocks:
            site.ensure()

    def take_back(self) -> bool:
        """Take back the transformer's own call where it was compiled as a whole since; whether it was."""
        plain = compiled_forward(self.transformer)
        if plain is not None:
            self._compiled, self.transformer.forward = self.transformer.forward, plain
        return self.call.take_back() or self._compiled is not None

    def _refuse(self, compile: Proceed, *args: Any, **kwargs: Any) -> None:
        raise ConflictError(WHOLE.format(name=self.name).replace("is compiled", "would be compiled"))

    def remove(self) -> None:
        """Leave the transformer exactly as it was found."""
        for site in [self.call, *getattr(self, "blocks", [])]:
            site.remove()
        self._compile.remove()
        if self._compiled is not None:
            self.transformer.forward, self._compiled = self._compiled, None
        if self.context is not None:
            self.context.remove()
        self.context = None


def require_plain_batch(denoiser: Denoiser, method: str) -> None:
    """Refuse a transformer whose blocks carry their batch elsewhere than in front. Raises: UnsupportedModelError."""
    if not plain_batch(denoiser.stacks):
        raise UnsupportedModelError(
            f"{method} needs blocks with one row a sample in front, and those of "
            f"{type(denoiser.transformer).__name__} are not laid out so; a forecast (GatedTaylor, IntervalTaylor) works"
        )


def denoisers_of(target: Any) -> list[tuple[str, nn.Module]]:
    """The transformers of a pipeline with their names, or the transformer itself.

    Raises: UnsupportedModelError where there is none.
    """
    if isinstance(target, nn.Module):
        return [("transformer", uncompiled("transformer", target))]
    found = [
        (name, uncompiled(name, module))
        for name in DENOISERS
        if isinstance(module := getattr(target, name, None), nn.Module)
    ]
    if not found:
        covered = sorted(t for _, f in FAMILIES.items() for t in f.transformers)
        raise UnsupportedModelError(
            f"{type(target).__name__} holds no transformer to accelerate (looked for .transformer); "
            f"covered are pipelines around: {', '.join(covered)}"
        )
    return found


def uncompiled(name: str, module: nn.Module) -> nn.Module:
    """The module itself. Raises: ConflictError where it is wrapped by torch.compile."""
    if hasattr(module, "_orig_mod"):
        raise ConflictError(WHOLE.format(name=name))
    return module


def compiled_forward(module: nn.Module) -> Any:
    """The plain function inside a `forward` that was compiled and put in its place; None where there is none."""
    return getattr(vars(module).get("forward"), "_torchdynamo_orig_callable", None)


def driver_of(module: Any) -> Any:
    """Who drives an accelerated transformer, or None."""
    site = getattr(getattr(module, "_orig_mod", module), "_compiled_call_impl", None)
    return site.owner if isinstance(site, Interception) else None
