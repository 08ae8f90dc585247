"""What one call of a transformer computes, and in which of its modules: read off the call, on the meta device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ...errors import InputError

Running = tuple[str, ...]
"""Paths of the modules that were running, each called by the one before; "" is the transformer itself. The last alone
would not do: the output of DiT calls a module of its first block."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """One shape of attention and how often a call of the transformer runs it."""

    heads: int
    queries: int
    keys: int
    width: int
    """Features of one head."""
    count: int = 1

    def is_own(self, tokens: int) -> bool:
        """True for attention of the picture's `tokens`, and of text in one sequence with them, to themselves."""
        return self.queries == self.keys >= tokens

    @property
    def flops(self) -> int:
        """Two products of queries x keys x width, two operations each: 4 H N M D, for all its runs."""
        return 4 * self.count * self.heads * self.queries * self.keys * self.width


@dataclass(frozen=True, kw_only=True, slots=True)
class Recording:
    """One call: what each module computed by itself, without the modules inside it."""

    attention: tuple[tuple[Running, Site], ...]
    """Who called scaled_dot_product_attention, and the shape."""
    products: Mapping[Running, int]
    """FLOPs of products and convolutions that reached torch's operators."""

    @property
    def flops(self) -> int:
        """Of all modules together."""
        return sum(self.products.values()) + sum(site.flops for _, site in self.attention)

    def within(self, *paths: str) -> Recording:
        """What the modules at `paths` compute, with the modules they call."""
        wanted = {*paths}
        return Recording(
            attention=tuple((running, site) for running, site in self.attention if not wanted.isdisjoint(running)),
            products={running: flops for running, flops in self.products.items() if not wanted.isdisjoint(running)},
        )

    def without(self, *paths: str) -> Recording:
        """What is left where the modules at `paths` are not called."""
        gone = {*paths}
        return Recording(
            attention=tuple((running, site) for running, site in self.attention if gone.isdisjoint(running)),
            products={running: flops for running, flops in self.products.items() if gone.isdisjoint(running)},
        )


class _Place:
    """The modules that are running."""

    def __init__(self) -> None:
        self._running: list[str] = []

    @property
    def running(self) -> Running:
        return tuple(self._running)

    @contextmanager
    def follow(self, *transformers: nn.Module) -> Iterator[None]:
        hooks = []
        for path, module in (named for transformer in transformers for named in transformer.named_modules()):
            hooks.append(module.register_forward_pre_hook(lambda *_, path=path: self._running.append(path)))
            hooks.append(module.register_forward_hook(lambda *_: self._leave()))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _leave(self) -> None:
        self._running.pop()


class _AttentionRecorder(TorchFunctionMode):
    """Notes where attention is called and its shapes.

    Args:
        computing: the counter of products, which looks away while attention is computed: torch has formulas for some of
            its kernels, for others none. None: attention is answered without computing anything.
    """

    def __init__(self, place: _Place, computing: _ProductCounter | None = None) -> None:
        super().__init__()
        self.place, self.computing = place, computing
        self.shapes: Counter[tuple[Running, int, int, int, int]] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not functional.scaled_dot_product_attention:
            return func(*args, **kwargs)
        query, key, value = (
            kwargs.get(n, args[i] if i < len(args) else None) for i, n in enumerate(("query", "key", "value"))
        )
        batch, heads, queries, width = query.shape
        self.shapes[self.place.running, heads, queries, key.shape[-2], width] += batch
        if self.computing is not None:
            with self.computing.looking_away():
                return func(*args, **kwargs)
        return query.new_empty(*query.shape[:-1], value.shape[-1])

    def found(self) -> tuple[tuple[Running, Site], ...]:
        return tuple(
            (running, Site(heads=heads, queries=queries, keys=keys, width=width, count=number))
            for (running, heads, queries, keys, width), number in self.shapes.items()
        )


class _HidingNothing(TorchFunctionMode):
    """Answers what only values could tell, for a prompt as long as it may be: masks hide nothing, conditions fail.

    On the meta device a mask has no values, and picking by one would have no shape.
    """

    def __init__(self) -> None:
        super().__init__()
        self._inverted: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__bool__ and args[0].is_meta:
            return False
        if (
            func is Tensor.__getitem__
            and isinstance(args[1], Tensor)
            and args[1].is_meta
            and args[1].dtype == torch.bool
        ):
            kept, mask = args
            return kept[:0] if any(mask is one for one in self._inverted) else kept
        result = func(*args, **(kwargs or {}))
        if func is Tensor.__invert__:
            self._inverted.append(result)
        return result


class _ProductCounter(TorchDispatchMode):
    """Sums the FLOPs of products and convolutions by torch's own formulas, module by module.

    torch's FlopCounterMode gives the same sums in several times the time.
    """

    def __init__(self, place: _Place) -> None:
        super().__init__()
        self.place = place
        self.flops: Counter[Running] = Counter()
        self._looks = True

    @contextmanager
    def looking_away(self) -> Iterator[None]:
        self._looks = False
        try:
            yield
        finally:
            self._looks = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None and self._looks:
            self.flops[self.place.running] += formula(*args, **(kwargs or {}), out_val=result)
        return result


def record_call(transformer: nn.Module, inputs: Mapping[str, Any]) -> Recording:
    """Run `transformer(**inputs)`, which computes and stores nothing where both are on the meta device.

    Attention is read off the shapes that reach scaled_dot_product_attention, everything else off the products and
    convolutions that reach torch's operators.

    Raises: InputError where the transformer refuses the shapes.
    """
    from diffusers.models.attention_dispatch import AttentionBackendName, attention_backend

    place = _Place()
    products, recorder = _ProductCounter(place), _AttentionRecorder(place)
    native = attention_backend(AttentionBackendName.NATIVE)
    try:
        with (
            place.follow(transformer),
            torch.no_grad(),
            torch.device("meta"),
            native,
            products,
            _HidingNothing(),
            recorder,
        ):
            transformer(**inputs, return_dict=False)
    except (ValueError, RuntimeError, NotImplementedError) as error:
        shapes = ", ".join(f"{k} {tuple(v.shape)}" for k, v in inputs.items() if isinstance(v, Tensor))
        raise InputError(
            f"{type(transformer).__name__} cannot be run at this size ({shapes}): {str(error).splitlines()[0]}"
        ) from error
    return Recording(attention=recorder.found(), products=products.flops)


@contextmanager
def recording_calls(transformers: Sequence[nn.Module]) -> Iterator[list[Recording]]:
    """While open, calls of `transformers` compute what they always do and are counted; the recording, at the end.

    What runs between the calls (text encoders, decoders, solvers) is not counted.
    """
    from diffusers.models.attention_dispatch import AttentionBackendName, attention_backend

    found: list[Recording] = []
    place = _Place()
    products = _ProductCounter(place)
    recorder = _AttentionRecorder(place, products)
    with (
        place.follow(*transformers),
        attention_backend(AttentionBackendName.NATIVE),
        products,
        recorder,
    ):
        yield found
    found.append(
        Recording(
            attention=tuple((running, site) for running, site in recorder.found() if running),
            products={running: flops for running, flops in products.flops.items() if running},
        )
    )
