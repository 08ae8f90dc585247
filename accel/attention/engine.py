"""Runs the attention of denoisers sparse: when to search, what to keep, and what was kept.

Every layer, guidance branch and row of the batch has a state of its own and decides by itself, so that a sample's
picture does not depend on its batch mates, and a forecast step, which runs no attention, changes nothing.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from ...errors import ConfigError, UnsupportedModelError
from ...kernels.attention import DENSE, MASS, SPARSE, dense_attention, sparse_attention
from ..denoiser import Denoiser, Interception, Site, require_plain_batch
from ..densities import range_at
from ..part import BlockSite, Current, Part, Shared
from ..trace import Call as Record
from .laid import laid_down
from .layout import Grid, Layout, make_layout, token_grid
from .record import AttentionRecord, Search
from .redirect import Attended, Redirect, hidden_keys, native_backend
from .search import Found, attend_and_weigh, index_of, search
from .selection import Selection
from .state import Call, Hidden, Kept, Layer, LayerState, RowState
from .wanted import Wanted, unfit
from .watch import Watch

FEWEST_SPARSE = 4
"""Steps that have to be left for a search after the first to be worth its cost."""

DENSE_CALL, SEARCH, RANKED, SPARSE_CALL = "dense", "search", "ranked", "sparse"


class AttentionEngine(Part):
    """The attention of the denoisers of one pipeline under AdaSpa."""

    place = "attention"
    remembers = (
        "_states", "_layouts", "_masks", "_watch", "_refused", "_counts", "_grid", "_reached", "_left_out",
    )  # fmt: skip

    def __init__(self, settings: Wanted, shared: Shared) -> None:
        if settings.backend != "auto" and settings.backend not in SPARSE.names():
            raise ConfigError(f"backend must be auto or one of {', '.join(SPARSE.names())}, not {settings.backend!r}")
        self.settings, self.trace = settings, shared.trace
        self.record = shared.trace.attention = AttentionRecord()
        self._layers: dict[str, list[Layer]] = {}
        self._shares: dict[str, float] = {}
        self._dense_seconds: dict[torch.Size, float] = {}
        super().__init__(shared)

    def start(self) -> None:
        self._states: dict[tuple[str, str, str, int], LayerState] = {}
        self._layouts: dict[tuple[Any, ...], Layout] = {}
        self._masks: dict[int, tuple[Tensor, list[Hidden], str]] = {}
        self._watch = Watch(self.settings, self.record)
        self._refused: set[tuple[str, str]] = set()
        self._counts: defaultdict[str, int] = defaultdict(int)
        self._grid: tuple[Grid | None] | None = None
        """That of the call under way, once one of its layers asked."""
        self._reached, self._left_out = 0, False

    def attach(self, denoiser: Denoiser) -> None:
        """Take hold of the self-attention of `denoiser`. Raises: UnsupportedModelError where it has none."""
        require_plain_batch(denoiser, "AdaSpa")
        reasons = {stack.dense for stack in denoiser.stacks}
        if "" not in reasons:
            raise UnsupportedModelError(
                f"the self-attention of {type(denoiser.transformer).__name__} cannot be made sparse, because "
                f"{' and '.join(sorted(reasons))}; a forecast (GatedTaylor, IntervalTaylor) works"
            )
        layers: list[Layer] = []
        for index, (stack, site) in enumerate(zip(denoiser.stacks, denoiser.blocks, strict=True)):
            block = site.module
            parameters = sum(p.numel() for p in block.parameters() if p.ndim > 1)
            for name, module in block.named_modules() if not stack.dense else ():
                if name in stack.attention and hasattr(module, "processor"):
                    layer = Layer(f"{index}.{name}", None, parameters, stack.text)  # pyright: ignore[reportArgumentType]
                    layer.site = Interception(
                        module, lambda site, *a, _l=layer, **k: self.attend(denoiser, _l, site, a, k)
                    )
                    layer.place = len(layers)
                    layers.append(layer)
        if not layers:
            raise UnsupportedModelError(
                f"no self-attention was found in the blocks of {type(denoiser.transformer).__name__}; "
                f"name it in the Stack(attention=...) of family '{denoiser.family.name}'"
            )
        if any(len(r.layers) != len(layers) for r in self.settings.ranges):
            raise ConfigError(
                f"the schedule of densities is for {len(self.settings.ranges[0].layers)} layers and "
                f"{type(denoiser.transformer).__name__} has {len(layers)}; calibrate it on this pipeline"
            )
        self._layers[denoiser.name] = layers
        self.record.layers = [layer.name for held in self._layers.values() for layer in held]

    def detach(self) -> None:
        """Leave every attention module as it was found."""
        for layers in self._layers.values():
            for layer in layers:
                layer.site.remove()
        self._layers.clear()

    def release(self) -> None:
        """Forget everything remembered of the run; the tensors are freed."""
        self._states.clear()
        self._layouts.clear()
        self._masks.clear()
        self._watch.clear()
        self._refused.clear()
        self._counts.clear()
        self._grid, self._reached, self._left_out = None, 0, False

    def leave(self, denoiser: str) -> None:
        """Free the patterns of a transformer that the run has left."""
        for key in [key for key in self._states if key[0] == denoiser]:
            del self._states[key]

    def site(self, denoiser: Denoiser, index: int, site: Site) -> Site:
        """The call of a block, whose number of tokens is noted."""
        hidden = denoiser.stacks[index].hidden

        def note(site: Site, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
            current = self.shared.current
            if current is not None and current.denoiser is denoiser:
                tokens = site.named(args, kwargs).get(hidden)
                current.tokens = tokens.shape[1] if isinstance(tokens, Tensor) else 0
            return site.proceed(*args, **kwargs)

        return BlockSite(site, note)

    def finish(self, current: Current, call: Record | None) -> Record | None:
        """The denoiser call under way is over: read what was measured in all its layers at once."""
        computed = call is not None and any(call.computed) and call.blocks > 0
        self._masks.clear()
        self._counts.clear()
        self._grid = None
        reachable = any(not layer.unreachable for layer in self._layers[current.denoiser.name])
        if computed and reachable and self._reached == 0:
            self.trace.warn(
                "attention could not be reached and ran dense: compiled blocks hold theirs inside the graph; "
                "use AdaSpa without compiling them"
            )
        if call is not None:
            call.sparse = self._left_out
        self._reached, self._left_out = 0, False
        self._watch.settle()
        self.record.bound()
        return call

    def attend(
        self, denoiser: Denoiser, layer: Layer, site: Interception, args: Sequence[Any], kwargs: dict[str, Any]
    ) -> Any:
        """One call of an attention module."""
        if torch.compiler.is_compiling():
            return site.proceed(*args, **kwargs)
        current = self.shared.current
        if current is None or current.denoiser is not denoiser or layer.unreachable:
            return site.proceed(*args, **kwargs)
        self._reached += 1
        kind = self._known_dense(current, layer)
        if kind:
            rows = len(current.rows) if current.rows is not None else current.batch
            self.record.note(kind, rows)
            return site.proceed(*args, **kwargs)
        redirect = Redirect(lambda attended, dense: self._answer(current, layer, attended, dense))
        with native_backend(site.module), redirect:
            result = site.proceed(*args, **kwargs)
        if redirect.seen == 0:
            layer.unreachable = True
            self.trace.warn(
                f"{type(site.module).__name__} does not end in scaled_dot_product_attention of its tokens to "
                "themselves, so it is left as it is"
            )
        return result

    def _known_dense(self, current: Current, layer: Layer) -> str:
        """Why a layer is known to run dense before it is entered, so that it runs untouched; empty where it may not."""
        if (current.denoiser.name, layer.name) in self._refused:
            return "fallback"
        planned, settings = self._planned(current), self.settings
        if settings.exact or planned == 0:
            return "dense"
        at = self._range(current)
        if settings.ranges and (at is None or settings.ranges[at].is_dense(layer.place)):
            return "dense"
        state = self._states.get((current.denoiser.name, current.moment.branch, layer.name, 0))
        if state is None:
            return ""
        rows = state.rows if current.rows is None else [state.rows[row] for row in current.rows]
        for row in rows:
            row.enter(at or 0)
        idle = all(self._phase(row, current, planned) == DENSE_CALL for row in rows)
        return "dense" if idle or state.hopeless else ""

    def _planned(self, current: Current) -> int:
        """How many searches of the schedule are due by now. Told by the noise level, so that no step is counted."""
        moment, clock = current.moment, self.shared.clock
        due = 0
        for share in self.settings.searches:
            if moment.num_steps is None or clock.levels is None:
                level = 1.0 - share
            else:
                place = clock.first + max(0, round(share * moment.num_steps) - 1)
                level = clock.levels[min(place, len(clock.levels) - 1)]
            due += moment.u <= level + 1e-6
        return due

    def _range(self, current: Current) -> int | None:
        """The range of the schedule of densities that this call is in; None where everything is kept."""
        return range_at(self.settings.ranges, current.moment.u) if self.settings.ranges else 0

    def _phase(self, state: RowState, current: Current, planned: int) -> str:
        """What one row runs now."""
        if planned == 0:
            return DENSE_CALL
        moment = current.moment
        left = FEWEST_SPARSE if moment.num_steps is None else moment.num_steps - moment.step - 1
        first = state.searches == 0
        again = state.searches < self.settings.most_searches and (planned > state.due or state.drifted)
        if (first and left > 0) or (again and left >= FEWEST_SPARSE):
            return RANKED if not first and not self.settings.fresh and state.lse is not None else SEARCH
        return DENSE_CALL if first or state.dense else SPARSE_CALL

    def _answer(self, current: Current, layer: Layer, attended: Attended, dense: Callable[[], Tensor]) -> Tensor:
        """The output of one scaled_dot_product_attention inside a layer."""
        q = attended.query
        nth = self._counts[layer.name]
        self._counts[layer.name] += 1
        rows = current.rows if current.rows is not None else list(range(current.batch))
        if q.shape[0] == 1 < len(rows):  # the module attends row by row
            nth, rows = nth // len(rows), [rows[nth % len(rows)]]
        elif current.rows is None:
            rows = list(range(q.shape[0]))
        hidden, doubt = self._doubt(attended, rows)
        if doubt:
            self.trace.warn(f"attention stays dense where {doubt}")
            self._refused.add((current.denoiser.name, layer.name))
            self.record.note("fallback", len(rows))
            return dense()
        state = self._state(current, layer, nth, q, rows, hidden)
        self._measure(layer, q)
        if not layer.worth(q, 0.0, self.settings.min_gain):
            share = layer.share(q)
            self.trace.warn(
                f"attention over {q.shape[2]} tokens is {share:.0%} of a block's work: leaving out all of it would "
                f"gain {1 / (1 - share) - 1:.0%}, so it stays dense (min_gain={self.settings.min_gain:g})"
            )
            state.hopeless = True
            self.record.note("dense", len(rows))
            return dense()
        planned = self._planned(current)
        kinds = [(self._phase(state.rows[row], current, planned), own) for row, own in zip(rows, hidden, strict=True)]
        if len(set(kinds)) == 1:
            return self._run(*kinds[0], current, layer, state, rows, attended, dense)
        # Rows of other needs, or with other keys hidden, are answered apart, each as it would be alone.
        out = torch.empty_like(q)
        for phase, own in dict.fromkeys(kinds):
            places = [place for place, kind in enumerate(kinds) if kind == (phase, own)]
            picked = torch.tensor(places, device=q.device)
            q_own, k_own, v_own = (x.index_select(0, picked) for x in (attended.query, attended.key, attended.value))
            part = Attended(q_own, k_own, v_own, scale=attended.scale)
            own_rows = [rows[place] for place in places]
            out.index_copy_(0, picked, self._run(phase, own, current, layer, state, own_rows, part, None))
        return out

    def _doubt(self, attended: Attended, rows: list[int]) -> tuple[list[Hidden], str]:
        """The keys hidden from every row, and why an attention cannot be made sparse; empty where it can."""
        doubt, mask = unfit(attended, self.settings), attended.attn_mask
        q, k = attended.query, attended.key
        if not doubt and q.shape[0] != len(rows):
            doubt = f"its batch of {q.shape[0]} is not that of the block, {len(rows)}"
        if doubt:
            return [], doubt
        if mask is None:
            return [()] * len(rows), ""
        if id(mask) not in self._masks:
            keys, doubt = hidden_keys(mask, q.shape[0], k.shape[2])
            hidden = [()] * len(rows) if keys is None else [tuple(row.nonzero()[:, 0].tolist()) for row in keys]
            self._masks[id(mask)] = (mask, hidden, doubt)
        return self._masks[id(mask)][1:]

    def _layout(self, current: Current, layer: Layer, q: Tensor, hidden: Hidden) -> Layout:
        if self._grid is None:
            self._grid = (token_grid(current.denoiser.transformer, current.denoiser.family, current.named),)
        (grid,) = self._grid
        picture = current.tokens if 0 < current.tokens < q.shape[2] else None
        key = (q.shape[2], picture, grid, layer.text, hidden, q.device)
        if key not in self._layouts:
            padding = None
            if hidden:
                padding = torch.zeros(q.shape[2], dtype=torch.bool)
                padding[list(hidden)] = True
            self._layouts[key] = make_layout(
                q.shape[2],
                self.settings.blocks,
                grid=grid,
                picture=picture,
                text=layer.text,
                tile=self.settings.tile,
                padding=padding,
                device=q.device,
            )
        return self._layouts[key]

    def _state(
        self, current: Current, layer: Layer, nth: int, q: Tensor, rows: list[int], hidden: list[Hidden]
    ) -> LayerState:
        """What is known of the `nth` attention of a layer, where it is still of the same shape."""
        key = (current.denoiser.name, current.moment.branch, layer.name, nth)
        count = max(current.batch, q.shape[0])
        state = self._states.get(key)
        if state is None or len(state.rows) != count:
            state = self._states[key] = LayerState([RowState() for _ in range(count)])
        at = self._range(current) or 0
        for row, own in zip(rows, hidden, strict=True):
            signature = (tuple(q.shape[1:]), own, q.dtype, q.device, current.generation)
            if state.rows[row].signature != signature:
                state.rows[row] = RowState(signature=signature)
            state.rows[row].enter(at)
        return state

    def _measure(self, layer: Layer, q: Tensor) -> None:
        """Note how large the attention is."""
        self._shares[layer.name] = layer.share(q)
        record = self.record
        record.heads, record.tokens = q.shape[1], max(record.tokens, q.shape[2])
        record.share = sum(self._shares.values()) / len(self._shares)

    def _run(
        self,
        phase: str,
        hidden: Hidden,
        current: Current,
        layer: Layer,
        state: LayerState,
        rows: list[int],
        attended: Attended,
        dense: Callable[[], Tensor] | None,
    ) -> Tensor:
        """The output of rows that run the same, with the same keys hidden. `dense` is what all of them came with."""
        q, k, v = attended.query, attended.key, attended.value
        begin = time.perf_counter()
        if phase == DENSE_CALL and dense is not None:
            out = dense()
            self.record.note("dense", len(rows))
            self.record.clock("dense", begin, q.device.type, q.shape[0])
            return out
        self._left_out = self._left_out or phase != DENSE_CALL
        lengths = None
        if hidden:
            lengths = torch.full((len(rows),), q.shape[2] - len(hidden), dtype=torch.int32, device=q.device)
        layout = self._layout(current, layer, q, hidden)
        call = Call(current, layer, state, rows, layout, lengths, attended.scale)
        first = self._lay_down if self.settings.pattern else self._search
        answer = {DENSE_CALL: self._dense, SEARCH: first, RANKED: self._rank, SPARSE_CALL: self._sparse}[phase]
        return layout.undo(answer(call, *(layout.visit(x) for x in (q, k, v))))

    def _dense(self, call: Call, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Dense output of some rows of a batch."""
        begin = time.perf_counter()
        out = cast(Tensor, dense_attention(q, k, v, scale=call.scale, key_lengths=call.lengths))
        self.record.note("dense", len(call.rows))
        self.record.clock("dense", begin, q.device.type, q.shape[0])
        return out

    def _search(self, call: Call, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Dense output with its normaliser, the exact mass, and the index from it (paper, algorithm 1)."""
        begin = time.perf_counter()
        out, lse, mass = attend_and_weigh(q, k, v, self.settings, scale=call.scale, lengths=call.lengths)
        self.record.note("dense", len(call.rows))
        self._choose(call, q, k, v, lse, out, mass)
        self.record.clock("mass", begin, q.device.type, q.shape[0])
        self._part_from_dense(call, q, k, v)
        self.record.backends["dense"] = DENSE.last or ""
        return out

    def _part_from_dense(self, call: Call, q: Tensor, k: Tensor, v: Tensor) -> None:
        """Of the time of a search on a CPU, call that of a dense call dense: one is made for each shape to know it."""
        if q.device.type != "cpu":
            return
        if q.shape not in self._dense_seconds:
            begin = time.perf_counter()
            dense_attention(q, k, v, scale=call.scale, key_lengths=call.lengths)
            self._dense_seconds[q.shape] = time.perf_counter() - begin
        record, dense = self.record, min(self._dense_seconds[q.shape], self.record.seconds["mass"])
        record.seconds["dense"] += dense
        record.seconds["mass"] -= dense
        record.clocked["dense"] += q.shape[0]

    def _lay_down(self, call: Call, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The first call of a static pattern: nothing is searched, and it is sparse already."""
        asked = self.settings
        keep = laid_down(q, k, asked.pattern, asked.target.value, call.layout, asked.blocks, call.scale)
        unknown = torch.zeros(keep.shape[:2])
        call.state.clear(call.rows)
        self._keep(call, 0, Found(Selection(keep, unknown, unknown), None), q, exact=False)
        for row in call.rows:
            call.state.rows[row].searches += 1
            call.state.rows[row].enter(0)
        return self._as_found(call, q, k, v)

    def _rank(self, call: Call, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """A later search that ranks blocks with the first search's normaliser (paper, algorithm 2)."""
        begin, held = time.perf_counter(), [call.state.rows[row].lse for row in call.rows]
        self._choose(call, q, k, v, torch.cat([lse for lse in held if lse is not None]), None, None)
        self.record.clock("mass", begin, q.device.type, q.shape[0])
        return self._as_found(call, q, k, v)

    def _as_found(self, call: Call, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Sparse, or dense where a row was found not to be worth it."""
        dense = any(call.state.rows[row].dense for row in call.rows)
        return (self._dense if dense else self._sparse)(call, q, k, v)

    def _choose(
        self, call: Call, q: Tensor, k: Tensor, v: Tensor, lse: Tensor, dense: Tensor | None, mass: Tensor | None
    ) -> None:
        """Search: the mass of every block, and what to keep of it. `dense` is the output, where `lse` is its own."""
        settings, layer = self.settings, call.layer.place
        # One mass serves all noise levels to come, until the next search.
        now = self._range(call.current) or 0
        later = [(at, r) for at, r in enumerate(settings.ranges) if at >= now and not r.is_dense(layer)]
        keeps = {at: torch.tensor(r.of(layer)) for at, r in later}
        founds = search(
            q, k, v, lse, settings, call.layout.always,
            dense=dense, scale=call.scale, lengths=call.lengths, densities=list(keeps.values()) or [None], mass=mass,
        )  # fmt: skip
        self.record.note("mass", len(call.rows), 0.5 * len(call.rows))
        self.record.backends["mass"] = MASS.last or ""
        call.state.clear(call.rows)
        for at, found in zip(keeps or [0], founds, strict=True):
            self._keep(call, at, found, q, dense is not None)
        planned = self._planned(call.current)
        for place, row in enumerate(call.rows):
            state = call.state.rows[row]
            state.due, state.searches, state.drifted = planned, state.searches + 1, False
            state.enter(now)
            if not settings.fresh and dense is not None and len(settings.searches) > 1:
                state.lse = lse[place : place + 1].clone()

    def _keep(self, call: Call, at: int, found: Found, q: Tensor, exact: bool) -> None:
        """What a search found for one range of noise levels: an index for each row, and its line in the record.

        Args:
            exact: whether the normaliser was that of these very queries and keys, so that the recall is known.
        """
        settings, moment, chosen = self.settings, call.current.moment, found.selection
        density, recall, least = (part.tolist() for part in (chosen.density, chosen.recall, chosen.least_recall))
        error = None if found.error is None else found.error.tolist()
        planned = self._planned(call.current)
        for place, row in enumerate(call.rows):
            state = call.state.rows[row]
            lengths = None if call.lengths is None else call.lengths[place : place + 1]
            kept = call.layer.worth(q, sum(density[place]) / len(density[place]), settings.min_gain)
            index = index_of(chosen.keep[place : place + 1], settings, q.shape[2], lengths) if kept else None
            mean = sum(recall[place]) / len(recall[place]) if exact else None
            state.found[at] = Kept(index, mean)
            self.record.searches.append(
                Search(
                    run=moment.run,
                    step=moment.step,
                    branch=moment.branch,
                    denoiser=call.current.denoiser.name,
                    layer=call.layer.name,
                    row=row,
                    cause="drift" if state.drifted and planned <= state.due else "schedule",
                    density=density[place],
                    recall=recall[place] if exact else None,
                    least_recall=least[place] if exact else None,
                    error=error[place] if error is not None else None,
                    kept=kept,
                    bytes=0 if index is None else index.nbytes,
                )
            )

    def _sparse(self, call: Call, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention over the kept blocks, watched."""
        begin, settings = time.perf_counter(), self.settings
        states = [call.state.rows[row] for row in call.rows]
        parts = [state.index for state in states if state.index is not None]
        index = call.state.index_of(parts)
        watched = self._watch.wanted
        result = sparse_attention(q, k, v, index, scale=call.scale, return_lse=watched, backend=settings.backend)
        out, lse = result if isinstance(result, tuple) else (result, None)
        if lse is not None:
            self._watch.look(call, q, k, v, lse)
        kept = sum(part.indices.numel() / (part.groups * part.rows * part.columns) for part in parts)
        self.record.note("sparse", len(call.rows), kept)
        self.record.backends["sparse"] = SPARSE.last or ""
        self.record.clock("sparse", begin, q.device.type, q.shape[0])
        return out
