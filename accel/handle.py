"""The handle on an accelerated pipeline: the change it made, what came of it, and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

from torch import nn

from ..errors import ConfigError, ConflictError
from .conductor import Conductor
from .denoiser import Denoiser, denoisers_of
from .families import find_family
from .kept import KEPT, Kept
from .methods import Method, check_combination, list_of_methods
from .profile import Expectation, Profile
from .ranks import whole_copies
from .requests import Request
from .trace import Trace


class Acceleration:
    """What `accelerate` returns: the change it made, what came of it, and the way back.

    Attributes:
        trace: every decision, as data.
        family: the family adapter in use.
        methods: the methods applied.
        profile: what they were taken from, where it was a profile.

    Args:
        leave_out: a method that cannot work in this pipeline is left out, with the reason in the trace, as long as
            another is left; else it is refused.
        beside: methods that change no picture and come along with those that were asked for.
    """

    def __init__(
        self,
        target: Any,
        methods: Sequence[Method],
        profile: Profile | None = None,
        *,
        leave_out: bool = False,
        beside: Sequence[Method] = (),
    ) -> None:
        check_combination([*methods, *beside])
        found = [(name, module, find_family(module)) for name, module in denoisers_of(target)]
        _, first, self.family = found[0]
        self._target, self.methods, self.profile, self._beside = target, list(methods), profile, list(beside)
        self.trace = Trace(
            family=self.family.name,
            blocks=len(self.family.blocks(first)),
            methods=[method.to_dict() for method in (*methods, *beside)],
        )
        self._conductor = Conductor(self.trace)
        self._denoisers: list[Denoiser] = []
        try:
            self._take_hold(target, found, leave_out)
        except BaseException:
            self.restore()
            raise

    def _take_hold(self, target: Any, found: Sequence[tuple[str, Any, Any]], leave_out: bool) -> None:
        conductor = self._conductor
        shared, conductor.handle = conductor.shared, self
        expectation = [] if self.profile is None else [Expectation(self.profile, shared)]
        made = [(method, method.part(shared)) for method in (*self.methods, *self._beside)]
        conductor.take([*expectation, *(part for _, part in made)])
        for part in list(conductor.parts):
            try:
                part.hold(target)
            except ConflictError as error:
                if not leave_out or len(self.methods) == 1:
                    raise
                method = next(method for method, its in made if its is part)
                self.methods.remove(method)
                conductor.parts.remove(part)
                self._tell(self.methods)
                self.trace.warn(f"{method.name} is left out here: {error}")
        if any(part.holds_denoisers for part in conductor.parts):
            for name, module, family in found:
                self._denoisers.append(Denoiser(name, module, family, conductor))
                conductor.attach(self._denoisers[-1])
            conductor.follow(target)
        if not isinstance(target, nn.Module):
            vars(target).setdefault(KEPT, Kept(self))

    def __reduce__(self) -> Any:
        raise ConflictError(
            "a handle belongs to the pipeline that it changes: accelerate the copy, or pickle the handle's trace"
        )

    def reset(self) -> None:
        """Forget what is remembered of the run under way, as at the start of a new one."""
        self._conductor.reset()

    def assign(self, methods: Sequence[Method]) -> None:
        """Give each sample of the batches to come a method of its own, in the place of one that is at work.

        Samples keep separate histories and are decided one by one, so each comes out as it would alone under its
        method: a server can mix strangers' dials in one batch. What is remembered of the run under way is forgotten.

        Args:
            methods: one for each sample, or a single one for all; all of them forecast, the rest stays as it is.

        Raises: ConfigError where there is none, or no such part; ConflictError for what is decided for whole batches.

        >>> run = accelerate(pipe, speedup=3)  # doctest: +SKIP
        >>> run.assign([dial(1.0), dial(4.0)])  # doctest: +SKIP
        >>> exact, fast = pipe(["a red circle"] * 2, num_inference_steps=50).images  # doctest: +SKIP
        """
        methods = list_of_methods(methods)
        places = {method.place for method in methods}
        found = [part for part in self._conductor.parts if part.place in places]
        if len(places) != 1 or len(found) != 1:
            raise ConfigError(
                "assign takes one method for each sample, all of the place of one given to accelerate; this has "
                f"{', '.join(sorted(places)) or 'none'}, and at work are {', '.join(m.name for m in self.methods)}"
            )
        found[0].assign(methods)
        kept = [method for method in self.methods if method.place not in places]
        self._tell([*kept, *dict.fromkeys(methods)])
        self.reset()

    def _tell(self, methods: Sequence[Method]) -> None:
        """Note in the trace what is at work."""
        self.trace.methods = [method.to_dict() for method in (*methods, *self._beside)]

    def request(self, scheduler: Any = None) -> Request:
        """One more request, where several take turns on this transformer in one thread; enter it around its calls.

        Threads are told apart without it. Keep it as long as the request lives: it stands for all that is remembered
        of it.

        Args:
            scheduler: that the request steps, where it is not the pipeline's own.

        >>> mine = run.request(its_scheduler)  # doctest: +SKIP
        >>> with mine:  # doctest: +SKIP
        ...     output = transformer(latents, t, embeds)
        ...     latents = its_scheduler.step(output, t, latents).prev_sample
        """
        return self._conductor.request(scheduler)

    def together(self, group: Any = None) -> None:
        """Have processes with a whole copy each decide as one: where one has to compute a sample, all compute it.

        For guidance whose branches are computed by different processes: left to themselves, one of them may forecast a
        step that the other computes, which no run on one process does. All of them have to be accelerated alike and to
        call their transformer equally often, with the same samples in the same order; one that does not leaves the
        others waiting.

        Args:
            group: the processes, of torch.distributed; all of them by default.

        Raises: ConflictError where there are no processes, or the transformer is spread over them, so that they decide
            together already.
        """
        found = [(denoiser, whole_copies(denoiser.transformer, group)) for denoiser in self._denoisers]
        for denoiser, ranks in found:
            denoiser.ranks = ranks
        self.reset()

    def restore(self) -> None:
        """Leave the pipeline exactly as it was found. Calling it twice does nothing more."""
        self._conductor.detach()
        for denoiser in self._denoisers:
            denoiser.remove()
        self._denoisers.clear()
        kept = getattr(self._target, "__dict__", {}).get(KEPT)
        if kept is not None and kept.handle is self:
            del vars(self._target)[KEPT]

    def summary(self) -> str:
        """What was computed and forecast, why, and what it brought: some lines for a person."""
        self._conductor.look_around()
        return self.trace.summary()

    def __enter__(self) -> Acceleration:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.restore()

    def __repr__(self) -> str:
        return f"<Acceleration of {self.family.name}: {', '.join(m.name for m in self.methods)}>"
