"""Which samples of a denoiser call are computed and which are forecast, and from what.

A sample is decided by its own policy: before the first block where something forces it or nothing has to be asked, or
by the gate, from how well the first block's output is forecast. Rows that carry the same latents (guidance batched in
one tensor) belong to one sample and are tied; the branches of a step follow the first; processes that share a
transformer decide together. Where several streams leave the model (a video and its sound), the one forecast worst
decides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from ...errors import ConflictError
from ..conditioning import leaves
from ..denoiser import Denoiser
from ..inputs import agreement, tied_rows
from ..part import Current, Part, Shared
from ..policy import Policy
from ..ranks import ASKED, COMPUTED, agree
from ..streams import Kind, several
from .active import Active, Branch, Given
from .history import History
from .partial import possible
from .rounding import COARSE

FORECAST = "forecast"
EXPERTS = ("transformer", "transformer_2")
"""Denoisers of a pipeline that take turns over the noise levels."""


class Deciding(Part):
    """The half of a forecaster that decides; it holds what is known of the samples of a run.

    Args:
        makers: make the policy of a sample for one run: one maker for all samples, or one for each.
    """

    place = "forecast"
    remembers = ("_policies", "_branches", "_decided", "_depths", "_orders", "_used", "_ties")

    def __init__(self, makers: Sequence[Callable[[], Policy]], shared: Shared) -> None:
        self.makers, self.trace, self.clock = list(makers), shared.trace, shared.clock
        self._experts: set[str] = set()
        super().__init__(shared)

    def start(self) -> None:
        """Remember nothing of a run."""
        self._policies: list[Policy] = []
        self._branches: dict[tuple[str, str], Branch] = {}
        self._ties: dict[tuple[str, str, int], int] = {}
        self._decided: list[bool] | None = None
        self._depths: dict[int, int] = {}
        self._orders: list[int | None] = []
        self._used: dict[int, tuple[list[int], list[float]]] = {}

    def release(self) -> None:
        """Forget everything remembered of the run; the tensors are freed."""
        self._branches.clear()
        self._ties.clear()
        self._policies.clear()
        self._decided = None

    def attach(self, denoiser: Denoiser) -> None:
        if denoiser.name in EXPERTS:
            self._experts.add(denoiser.name)

    def leave(self, denoiser: str) -> None:
        """Free the histories of a transformer that the run has left."""
        for key in [key for key in self._branches if key[0] == denoiser]:
            del self._branches[key]

    def inputs_changed(self) -> None:
        """What was computed before answers another question."""

    def _tied(self, current: Current) -> int:
        """Rows of one sample. Looked up in the first call of a branch; whether it still holds is seen later."""
        key = (current.denoiser.name, current.moment.branch, current.batch)
        known = self._ties.get(key)
        if known is None:
            known = self._ties[key] = tied_rows(current.latents, self.clock.reads)
        elif known > 1:

            def seen(agrees: float) -> None:
                if not agrees:
                    self._ties.pop(key, None)

            self.clock.reads.later(agreement(current.latents, known), seen)
        return known

    def _foresee(self, active: Active) -> None:
        """Decide before the transformer runs, where it is given what it was before, so that its first block will be."""
        current = active.current
        known = self._branches.get((current.denoiser.name, current.moment.branch))
        active.given = given_of(current)
        if known is None or active.given is None or known.given != active.given:
            return
        timings = self.trace.timings
        begin = timings.mark(current.named)
        self._plan(active, known.kinds)
        current.idle = not any(active.computed) and all(active.reason) and not active.partial.depth
        current.made = known.made if current.idle else None
        timings.span("gate and forecast", begin, timings.mark(current.named))

    def _plan(self, active: Active, streams: dict[str, Kind]) -> None:
        """Decide what can be decided before the first block; an empty reason is left for the gate."""
        moment, denoiser = active.current.moment, active.current.denoiser
        batch = next(iter(streams.values())).shape[0]
        if len(self.makers) > 1 and batch % len(self.makers) == 0:
            active.tie = batch // len(self.makers)  # strangers with one seed begin with the same latents, too
        elif batch % active.tie:
            active.tie = 1
        samples = batch // active.tie
        active.policies = self._policies_of(samples, active.current)
        active.at = [moment.u if p.coordinate == "sigma" else float(moment.step) for p in active.policies]
        changed = self._open_branch(active, streams) or denoiser.must_compute(active.current.named)
        histories = active.histories
        active.apart = {name: [None] * samples for name in streams} if several(denoiser.stacks[-1]) else {}
        active.error, active.order = [None] * samples, [None] * samples
        active.computed, active.reason = [True] * samples, [""] * samples
        follows = not moment.leader and self._decided is not None and len(self._decided) == samples
        for s in range(samples):
            history, policy = histories[active.rows_of(s)[0]], active.policies[s]
            reason = changed or doubt(history, active.at[s])
            if not history.anchors:  # forgotten in one stream, forgotten in all
                for found in active.streams.values():
                    for row in active.rows_of(s):
                        found[row].clear()
            if reason:
                active.reason[s] = reason
            elif follows and self._decided is not None:
                # A branch that joined later, or lost its history, may not extrapolate from less than the leader has.
                poorer = not self._decided[s] and len(history.anchors) < min(2, (self._orders[s] or 0) + 1)
                active.computed[s] = self._decided[s] or poorer
                follow = "too little history" if poorer else "follows the first branch"
                active.reason[s] = follow if active.computed[s] else FORECAST
            else:
                active.reason[s] = policy.forced(moment, history) or ""
                if not active.reason[s]:
                    active.computed[s] = False
                    if not policy.probes:
                        refused = self._accept(active, s)
                        active.computed[s], active.reason[s] = refused is not None, refused or FORECAST
            if not active.computed[s]:
                self._weigh(active, s, follows)
                active.order[s] = len(active.weights[s]) - 1
                self._compute_part(active, s, follows)
        self._tie_samples(active)

    def _compute_part(self, active: Active, sample: int, follows: bool) -> None:
        """Run the first blocks of a forecast sample, where its policy has a partial step here."""
        policy, rows = active.policies[sample], active.rows_of(sample)
        due = sample in self._depths if follows else policy.depth > 0 and policy.partial(active.current.moment)
        found = [found[row] for found in active.streams.values() for row in rows]
        if due and possible(found, len(active.weights[rows[0]])):
            active.partial.depth[sample] = policy.depth

    def _agree(self, active: Active, device: torch.device) -> bool:
        """Compute what another process that shares the transformer has to compute.

        Returns: whether a process is left to ask its gate, so that all have to agree again.
        """
        ranks = active.current.denoiser.ranks
        if ranks is None:
            return False
        needs = [
            COMPUTED if done else 0 if reason else ASKED
            for done, reason in zip(active.computed, active.reason, strict=True)
        ]
        agreed = agree(needs, ranks, device)
        for s, (mine, most) in enumerate(zip(needs, agreed, strict=True)):
            if most > mine:
                active.computed[s], active.reason[s], active.order[s] = True, "another process computes", None
        return ASKED in agreed

    def _accept(self, active: Active, sample: int) -> str | None:
        """Ask the policy about every stream of a sample: None to forecast, or why not."""
        row, refusals = active.rows_of(sample)[0], []
        for name, histories in active.streams.items():
            refusals.append(active.policies[sample].accept(active.current.moment, histories[row], None))
            error = histories[row].expected
            if name in active.apart:
                active.apart[name][sample] = error
            if error is not None:
                active.error[sample] = max(error, active.error[sample] or 0.0)
        return next((refusal for refusal in refusals if refusal is not None), None)

    @staticmethod
    def _tie_samples(active: Active) -> None:
        """Compute all samples where one is computed and the pipeline keeps keys and values that are not cut down."""
        waiting = any(not reason for reason in active.reason)
        if active.current.denoiser.keeps(active.current.named) and any(active.computed) and not waiting:
            for s, done in enumerate(active.computed):
                if not done:
                    active.computed[s], active.reason[s] = True, "shares a cache"

    def _weigh(self, active: Active, sample: int, follows: bool) -> None:
        """Choose the anchors and weights of a sample's forecast: the same in all its rows and branches.

        Guidance takes the difference of branches, in which a common error cancels and a separate one is multiplied.
        """
        rows = active.rows_of(sample)
        # Where there are several streams, the one forecast worst chooses for all.
        histories = max(active.streams.values(), key=lambda found: found[rows[0]].expected or 0.0)
        if follows and sample in self._used:
            steps, weights = self._used[sample]
        else:
            weights = histories[rows[0]].weights(active.at[sample])
            steps = [a.step for a in histories[rows[0]].anchors[: len(weights)]]
        for row in rows:
            same = [a.step for a in histories[row].anchors[: len(weights)]] == steps
            active.weights[row] = weights if same else histories[row].weights(active.at[sample])

    def _open_branch(self, active: Active, streams: dict[str, Kind]) -> str:
        """Find the state of this call's branch, or begin it anew and say why."""
        current = active.current
        key = (current.denoiser.name, current.moment.branch)
        main, *others = streams.items()
        signature = current.signature(main[1]) + tuple((name, kind.shape) for name, kind in others)
        branch = self._branches.get(key)
        if branch is None or branch.signature != signature:
            reason = "first step" if branch is None else current.changed or "inputs changed"
            if branch is not None:
                self.inputs_changed()
            fresh = {
                name: [self._fresh_history(p) for _ in range(active.tie) for p in active.policies] for name in streams
            }
            for histories in fresh.values():
                for history in histories:
                    history.ranks = current.denoiser.ranks
            branch = Branch(signature, fresh)
            self._branches[key] = branch
            if main[1].dtype in COARSE and any(history.rated for history in branch.rows):
                active.sizes = {}
            active.branch = branch
            return reason
        active.branch = branch
        return ""

    def _policies_of(self, samples: int, current: Current) -> list[Policy]:
        """The policies of a run's samples, made when it begins."""
        if len(self._policies) != samples:
            if len(self.makers) not in (1, samples):
                raise ConflictError(
                    f"{len(self.makers)} samples were given a dial of their own and the denoiser is called with "
                    f"{samples}: give each sample one, or one for all"
                )
            self._policies = [self.makers[s if len(self.makers) > 1 else 0]() for s in range(samples)]
            levels = self.clock.levels
            levels = None if levels is None else levels[self.clock.first :]
            for policy in self._policies:
                policy.begin(levels, max(1, len(self._experts)), self.trace.warn, self._divisible(current))
        return self._policies

    def _divisible(self, current: Current) -> int:
        """Blocks of the denoiser that is called, where a step may compute some of them; else 1.

        Processes that share a transformer run every block together, a cache of keys and values wants every block's, and
        what is left out inside of blocks is decided for whole calls.
        """
        denoiser = current.denoiser
        apart = any(part.place in ("bricks", "attention") for part in self.shared.parts)
        return 1 if apart or denoiser.ranks is not None or denoiser.keeps(current.named) else len(denoiser.blocks)

    def _fresh_history(self, policy: Policy) -> History:
        history = policy.history()
        if self.clock.noisy:
            self._calm(history)
        return history

    def _calm(self, history: History) -> None:
        """Keep forecasts at order 1 where noise is added: what they follow is not smooth then."""
        if history.max_order > 1:
            self.trace.warn("the solver adds noise in its steps, which is not smooth: the forecast is kept at order 1")
            history.max_order = 1
            history.order = None if history.order is None else 1
            history.gate_order = None if history.gate_order is None else min(1, history.gate_order)

    def _probe(self, active: Active, undecided: list[int]) -> None:
        """Ask the gate about the undecided samples: how well is the first block's output forecast?"""
        histories = active.histories
        errors: list[torch.Tensor] = []
        unknown: set[int] = set()
        for name, truths in active.first.items():
            for s in undecided:
                measured = []
                for row in active.rows_of(s):
                    found = active.streams[name][row].first_error(active.at[s], active.weights[row], truths[row])
                    if found is None:  # what followers make of the first block is not kept
                        unknown.add(s)
                    measured.append(truths.new_full((), torch.nan).float() if found is None else found)
                errors.append(measured[0] if len(measured) == 1 else torch.stack(measured).mean())
        told = self.clock.reads.read(errors)
        by_stream = [
            [
                active.streams[name][active.rows_of(s)[0]].first_missed(active.at[s], active.weights[s], told.pop(0))
                for s in undecided
            ]
            for name in active.first
        ]
        for name, some in zip(active.apart, by_stream, strict=False):
            for s, value in zip(undecided, some, strict=True):
                active.apart[name][s] = value if value == value else None
        # The worst stream decides; one that is not a number is the worst.
        worst = [
            max(values, key=lambda value: math.inf if value != value else value)
            for values in zip(*by_stream, strict=True)
        ]
        for s, error in zip(undecided, worst, strict=True):
            finite = error == error and abs(error) != float("inf")
            active.error[s] = error if finite else None
            refused = "not finite" if s not in unknown else "never led before"
            if self.clock.unexpected:
                refused = "timestep unexpected"
            elif finite:
                for row in active.rows_of(s):
                    refused = active.policies[s].accept(active.current.moment, histories[row], error)
            active.computed[s], active.reason[s] = refused is not None, refused or FORECAST
            if refused is None:
                active.probed += 1
        self._tie_samples(active)


def given_of(current: Current) -> Given | None:
    """What tells, before a transformer runs, what its first block will be given: as much as that was in another call
    where this is the same.

    Returns: the generation of what stays the same through a run, the kinds of what does not, and the types in which is
        computed; None where a cache comes along, and where processes share the transformer and have to agree.
    """
    denoiser, named = current.denoiser, current.named
    if denoiser.ranks is not None or denoiser.keeps(named):
        return None
    moving = [(path, leaf) for name in sorted(denoiser.family.moves) for path, leaf in leaves(name, named.get(name))]
    kinds = tuple((path, Kind.of(leaf) if isinstance(leaf, torch.Tensor) else type(leaf)) for path, leaf in moving)
    device = next((leaf.device.type for _, leaf in moving if isinstance(leaf, torch.Tensor)), "cpu")
    mixed = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    return (current.generation, None if denoiser.weight is None else denoiser.weight.dtype, mixed, kinds)


def doubt(history: History, at: float) -> str:
    """Why nothing can be forecast from `history` at `at`, or an empty string."""
    anchors = history.anchors
    if not anchors:
        return "no history"
    if at == anchors[0].at:
        return "same noise level"
    if len(anchors) > 1 and (at - anchors[0].at) * (anchors[0].at - anchors[1].at) < 0:
        history.clear()
        return "noise level turned back"
    return ""
