"""What leaving out attention costs, by layer, head, noise level and age of the index: measured beside plain runs.

At some steps the denoiser is called again with blocks left out of one layer's attention, of one head's or of all of
them, everything else dense. How far the output moves is the error; how much an error at that noise level counts in the
picture is told by the moment. The run itself goes on as if nobody had looked.

Shapes: B batch, H heads, N tokens, D width, R rows and C columns of blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from ...errors import UnsupportedModelError
from ...kernels.attention import sparse_attention
from ...kernels.precision import widest
from ..attention.engine import AttentionEngine
from ..attention.redirect import Attended
from ..attention.search import attend_and_weigh, index_of, search
from ..attention.state import Layer
from ..attention.wanted import Wanted
from ..clock import Clock
from ..denoiser import Denoiser, Interception, denoisers_of, echo
from ..families import find_family
from ..inputs import timestep_of
from ..moment import Moment
from ..part import Current, Shared
from ..trace import Trace
from .brick_costs import tensor_of

DENSITIES = (0.5, 0.25, 0.125, 0.0625)
"""At which the error of every head's own output is measured, for what lies between and beyond them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """What is left out of one call that is asked aside."""

    layers: tuple[int, ...]
    """Places among the layers that can be sparse."""
    head: int | None = None
    """One alone of every layer; None for all of them."""
    age: int = 0
    """Looks ago at which the blocks were chosen."""


@dataclass(slots=True, kw_only=True)
class Look:
    """What was seen at one step of one run."""

    step: int
    level: float
    """Noise level, 1 pure noise."""
    weight: float
    """How much an error of this step's output counts in the picture (see moment.Moment.weight)."""
    errors: dict[Variant, float] = field(default_factory=dict)
    """Relative L2 distance of the denoiser's output, mean over the batch."""
    density: list[list[float]] = field(default_factory=list)
    """[layer][head]: share of the blocks that the settings keep, mean over the batch."""
    recall: list[list[float]] = field(default_factory=list)
    """[layer][head]: share of the mass in them."""
    own: list[list[list[float]]] = field(default_factory=list)
    """[layer][head][density]: squared error of the head's own output at each of `DENSITIES`, summed over the tokens."""
    kept: list[list[float]] = field(default_factory=list)
    """[layer][head]: the same of what the settings keep."""


def every_layer(layers: int, heads: int) -> list[Variant]:
    """Each layer alone."""
    return [Variant(layers=(layer,)) for layer in range(layers)]


class SparseProbe:
    """Drives the denoisers of plain runs, and looks aside (see denoiser.Denoiser for what drives one).

    Args:
        pipe: a diffusers pipeline with a scheduler.
        settings: what is left out, as `AdaSpa` says it.
        steps: at which is looked, counted from the start of a run.
        variants: what is asked at every look, given how many layers and heads there are.

    Raises: UnsupportedModelError for a pipeline without a scheduler, or whose attention cannot be made sparse.
    """

    def __init__(
        self,
        pipe: Any,
        settings: Wanted,
        steps: Sequence[int],
        variants: Callable[[int, int], list[Variant]] = every_layer,
    ) -> None:
        self._pipe, self._steps, self._variants = pipe, set(steps), variants
        self.looks: list[Look] = []
        self.levels: tuple[float, ...] = ()
        """Noise level before each step of the run."""
        self.clock = Clock(self.reset)
        self._engine = _Aside(settings, Shared(Trace(family="", blocks=0, methods=[]), self.clock))
        self._entries: list[dict[str, Any]] = []
        self._first: int | None = None
        """The block from which on a call aside differs from the plain one; None in a plain call."""

    def run(self, run: Callable[[], object]) -> list[Look]:
        """What was seen in one call of `run`, which calls the pipeline."""
        scheduler = getattr(self._pipe, "scheduler", None)
        if scheduler is None or not hasattr(scheduler, "step"):
            raise UnsupportedModelError("costs are measured on a pipeline with a scheduler, which tells noise levels")
        self.looks = []
        denoisers: list[Denoiser] = []
        try:
            for name, module in denoisers_of(self._pipe):
                denoisers.append(Denoiser(name, module, find_family(module), self))
                self._engine.attach(denoisers[-1])
            self.clock.attach(scheduler)
            with torch.no_grad():
                run()
            return self.looks
        finally:
            self.clock.detach()
            self._engine.detach()
            for denoiser in denoisers:
                denoiser.remove()

    def reset(self) -> None:
        """Forget what is remembered of a run."""
        self._engine.forget()

    def call(self, denoiser: Denoiser, site: Interception, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """One call of the transformer, and what is asked aside."""
        named = site.named(args, kwargs)
        context = denoiser.context.name if denoiser.context is not None else None
        moment = self.clock.tick(float(timestep_of(named, denoiser.family)), context)
        engine, shared = self._engine, self._engine.shared
        shared.current = Current(denoiser, moment, named, moment.u)
        looked = moment.leader and moment.step in self._steps
        self._entries, self._first = [{} for _ in denoiser.blocks] if looked else [], None
        try:
            if not looked:
                return site.proceed(*args, **kwargs)
            with engine.looking() as look:
                output = site.proceed(*args, **kwargs)
            self.levels = tuple(map(float, (self.clock.levels or [1.0])[:-1]))
            self.looks.append(self._look(denoiser, moment, look, output, lambda: site.proceed(*args, **kwargs)))
            return output
        finally:
            shared.current = None

    def _look(self, denoiser: Denoiser, moment: Moment, look: Look, output: Any, again: Callable[[], Any]) -> Look:
        if not look.density:
            raise UnsupportedModelError(
                "no attention of this pipeline can be made sparse at this size and these settings (min_tokens, masks)"
            )
        look.step, look.level, look.weight = moment.step, moment.u, moment.weight
        plain, engine = tensor_of(output).float().flatten(1), self._engine
        for variant in self._variants(len(look.density), len(look.density[0])):
            if variant.age and not engine.has(variant.age):
                continue
            with engine.leaving_out(variant):
                self._first = min(engine.block_of(denoiser, layer) for layer in variant.layers)
                moved = (tensor_of(again()).float().flatten(1) - plain).norm(dim=1) / plain.norm(dim=1)
            look.errors[variant] = float(moved.mean())
        self._first = None
        return look

    def block(
        self, denoiser: Denoiser, index: int, site: Interception, args: Sequence[Any], kwargs: dict[str, Any]
    ) -> Any:
        """One call of a block: as it was up to the first that differs from the plain call."""
        stack, named, current = denoiser.stacks[index], site.named(args, kwargs), self._engine.shared.current
        if current is not None and isinstance(named.get(stack.hidden), Tensor):
            current.tokens = named[stack.hidden].shape[1]
        if self._first is None:
            if self._entries:
                self._entries[index] = {
                    name: value.clone() if isinstance(value, Tensor) else value
                    for name in stack.returns
                    if (value := named.get(name)) is not None
                }
            return site.proceed(*args, **kwargs)
        if index < self._first:  # as it was, so that nothing has to run
            return echo(named, stack)
        if index == self._first:
            return site.proceed(**{**named, **self._entries[index]})
        return site.proceed(*args, **kwargs)


class _Aside(AttentionEngine):
    """Attention that runs dense and looks at what could be left out, or leaves it out where it is asked to."""

    def __init__(self, settings: Wanted, shared: Shared) -> None:
        super().__init__(settings, shared)
        self._seen: Look | None = None
        self._variant: Variant | None = None
        self._kept: list[dict[str, Tensor]] = []
        """Of every look, the newest first: the kept blocks, bool (B, H, R, C), of every layer."""

    def forget(self) -> None:
        """Forget the looks of a run."""
        self._kept.clear()
        self.release()

    def has(self, age: int) -> bool:
        """Whether there was a look so many looks ago."""
        return age < len(self._kept)

    def block_of(self, denoiser: Denoiser, layer: int) -> int:
        """The block in which a layer is."""
        return int(self._layers[denoiser.name][layer].name.split(".", 1)[0])

    @contextmanager
    def looking(self) -> Iterator[Look]:
        """While it is entered, everything runs dense and is looked at."""
        self._seen = Look(step=0, level=0.0, weight=0.0)
        self._kept.insert(0, {})
        try:
            yield self._seen
        finally:
            self._seen = None
            self._end_call()

    @contextmanager
    def leaving_out(self, variant: Variant) -> Iterator[None]:
        """While it is entered, blocks are left out of what `variant` says."""
        self._variant = variant
        try:
            yield
        finally:
            self._variant = None
            self._end_call()

    def _end_call(self) -> None:
        self._counts.clear()
        self._masks.clear()
        self._grid = None

    def _known_dense(self, current: Current, layer: Layer) -> str:
        if (current.denoiser.name, layer.name) in self._refused:
            return "fallback"
        if self._seen is not None:
            return ""
        if self._variant is None:
            return "dense"
        return "" if self._place(current, layer) in self._variant.layers else "dense"

    def _place(self, current: Current, layer: Layer) -> int:
        return self._layers[current.denoiser.name].index(layer)

    def _answer(self, current: Current, layer: Layer, attended: Attended, dense: Callable[[], Tensor]) -> Tensor:
        q, rows = attended.query, list(range(attended.query.shape[0]))
        hidden, doubt = self._doubt(attended, rows)
        if doubt or len(set(hidden)) > 1:
            self._refused.add((current.denoiser.name, layer.name))
            return dense()
        layout = self._layout(current, layer, q, hidden[0])
        lengths = None
        if hidden[0]:
            lengths = torch.full((len(rows),), q.shape[2] - len(hidden[0]), dtype=torch.int32, device=q.device)
        q, k, v = (layout.visit(x) for x in (q, attended.key, attended.value))

        def attend(keep: Tensor) -> Tensor:
            index = index_of(keep, self.settings, q.shape[2], lengths)
            return cast(Tensor, sparse_attention(q, k, v, index, scale=attended.scale, backend=self.settings.backend))

        if self._seen is None:
            asked = self._variant or Variant(layers=())
            keep = self._kept[asked.age][layer.name]
            if asked.head is not None:
                others = torch.arange(keep.shape[1], device=keep.device) != asked.head
                keep = keep | others[:, None, None]
            return layout.undo(attend(keep))
        out, lse, mass = attend_and_weigh(q, k, v, self.settings, scale=attended.scale, lengths=lengths)
        levels = [torch.full((q.shape[1],), density) for density in DENSITIES]
        found, *at_levels = (
            one.selection
            for one in search(
                q, k, v, lse, self.settings, layout.always,
                dense=out, scale=attended.scale, lengths=lengths, densities=[None, *levels], mass=mass,
            )
        )  # fmt: skip
        self._kept[0][layer.name] = found.keep
        self._seen.density.append(found.density.mean(0).tolist())
        self._seen.recall.append(found.recall.mean(0).tolist())

        def error(keep: Tensor) -> list[float]:
            return (attend(keep) - out).to(widest(out.device)).square().sum((0, 2, 3)).tolist()

        own = [error(one.keep) for one in at_levels]
        self._seen.kept.append(error(found.keep))
        self._seen.own.append([list(errors) for errors in zip(*own, strict=True)])
        return layout.undo(out)


def at_looks(steps: int, looks: int) -> Iterator[int]:
    """The middle steps of `looks` ranges of equally many steps."""
    for look in range(looks):
        yield int((2 * look + 1) * steps / (2 * looks))
