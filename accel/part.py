"""What a method brings into a pipeline: a part, and what all parts of one pipeline share.

A part hears of every run, denoiser call, block and solver step, and may stand in for any of them; whatever it leaves
alone is passed on. The conductor drives a list of parts and knows none of them by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from ..errors import ConflictError
from .clock import Clock
from .denoiser import Denoiser, Proceed, Rows, Site
from .families import Stack
from .inlets import Made
from .moment import Moment
from .multistep import Multistep
from .streams import Kind
from .trace import Call, Trace

PLACES = ("expectation", "solver", "forecast", "bricks", "attention")
"""Order of the parts, outermost first: a forecast decides whether blocks run, bricks which of them, attention what is
left out inside. A part of another place comes after them, next to the block."""


@dataclass(slots=True)
class Current:
    """The denoiser call that is under way."""

    denoiser: Denoiser
    moment: Moment
    named: dict[str, Any]
    """Its arguments by name."""
    sigma: float | None
    """Noise level in 0..1, None where no scheduler tells."""
    generation: int = 0
    """Counts the changes of what this branch is asked for; what is remembered of another generation is of no use."""
    changed: str = ""
    """What has changed of it in this call: "encoder_hidden_states changed"."""
    rows: list[int] | None = None
    """Rows of the batch that the block under way is given, None for all."""
    tokens: int = 0
    """Tokens in the block under way that become the picture, where attention is left out; in some models the text's
    are among them."""

    idle: bool = False
    """True where it is known from the beginning that no block runs, for any row."""
    made: Made | None = field(default_factory=dict)
    """What the modules give that work for the blocks alone (see inlets.py); None where that is known already."""

    @property
    def batch(self) -> int:
        """Rows of the batch."""
        return len(self.latents) if self.latents is not None else 1

    @property
    def latents(self) -> Any:
        """What is denoised: a tensor, a list of tensors, or None."""
        return self.named.get(self.denoiser.family.latents)

    def signature(self, hidden: Kind | torch.Tensor) -> tuple[Any, ...]:
        """What must stay the same for what is remembered to hold: the tokens' kind, and what is asked for."""
        return (tuple(hidden.shape), hidden.dtype, hidden.device, self.generation)

    def run_rows(self, rows: Rows, proceed: Proceed, named: dict[str, Any], stack: Stack) -> Any:
        """Run a block for some rows of the batch."""
        self.rows = rows.rows
        try:
            return rows.run(proceed, named, stack)
        finally:
            self.rows = None

    def identity(self) -> dict[str, Any]:
        """What says in a trace which call this is."""
        moment = self.moment
        return {
            "run": moment.run,
            "step": moment.step,
            "branch": moment.branch,
            "denoiser": self.denoiser.name,
            "timestep": moment.timestep,
            "sigma": self.sigma,
        }


@dataclass(slots=True)
class Shared:
    """What the parts of one pipeline share."""

    trace: Trace
    clock: Clock
    current: Current | None = None
    solver: Multistep | None = None
    """What takes the scheduler's steps in its place, where something does."""
    parts: list[Part] = field(default_factory=list)
    """All of them, in order."""


class Part:
    """One method at work in one pipeline. Every method of this class does nothing, or passes on what it is given.

    Args:
        shared: the trace to write to, the clock to ask, the call under way, the other parts.
    """

    place: ClassVar[str] = ""
    """Where it comes in the order; see PLACES."""

    holds_denoisers: ClassVar[bool] = True
    """False where it changes nothing inside a transformer, so that none has to be intercepted for it."""

    asks_first_block: bool = False
    """True where it has to see the first block's result in every call."""

    remembers: ClassVar[tuple[str, ...]] = ()
    """Attributes that belong to the run under way, as `start` makes them: every request has its own."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.start()

    def start(self) -> None:
        """Make every attribute of `remembers` anew, holding nothing."""

    def suspend(self) -> dict[str, Any]:
        """Hand over what is remembered of the run, and begin with nothing: another request is served."""
        held = {name: getattr(self, name) for name in self.remembers}
        self.start()
        return held

    def resume(self, held: dict[str, Any]) -> None:
        """Take back what `suspend` handed over."""
        for name, value in held.items():
            setattr(self, name, value)

    def hold(self, target: Any) -> None:
        """Change what there is to change in the pipeline itself. Raises: ConflictError where that cannot be."""

    def attach(self, denoiser: Denoiser) -> None:
        """Take hold of one of its transformers. Raises: UnsupportedModelError, ConfigError."""

    def site(self, denoiser: Denoiser, index: int, site: Site) -> Site:
        """The call of block `index` with this part around it; asked once, when the denoiser is attached."""
        return site

    def assign(self, methods: Sequence[Any]) -> None:
        """Follow `methods[i]` in sample i of every batch to come. Raises: ConflictError where that cannot be."""
        raise ConflictError(f"what takes the {self.place} of a pipeline is one for all samples of a batch")

    def release(self) -> None:
        """Forget everything remembered of the run; the tensors are freed."""

    def leave(self, denoiser: str) -> None:
        """The run goes on with another transformer, as experts take turns by noise level: free what is remembered of
        this one. Where it should be called again after all, it begins anew."""

    def begin(self, current: Current) -> None:
        """A call of a denoiser begins."""

    def abort(self) -> None:
        """The call under way ended with an exception."""

    def finish(self, current: Current, call: Call | None) -> Call | None:
        """The call under way is over. Returns its record with what this part has to add, or None to drop it."""
        return call

    def around_step(self, step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """One step of the scheduler."""
        return step(*args, **kwargs)

    def detach(self) -> None:
        """Leave everything as it was found. Calling it twice does nothing more."""


@dataclass(frozen=True, slots=True)
class BlockSite:
    """The call of a block with somebody around it: `around(site, args, kwargs)` instead of the call itself."""

    site: Site
    around: Callable[[Site, Sequence[Any], dict[str, Any]], Any]

    def named(self, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
        return self.site.named(args, kwargs)

    def proceed(self, *args: Any, **kwargs: Any) -> Any:
        return self.around(self.site, args, kwargs)


def order_of(place: str) -> int:
    """Where a part comes among the others, outermost first."""
    return PLACES.index(place) if place in PLACES else len(PLACES)
