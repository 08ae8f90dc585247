"""Follows how well a pattern that was found earlier still fits, call by call."""

from __future__ import annotations

import torch
from torch import Tensor

from ...kernels.attention import dense_attention
from .record import AttentionRecord, Drift
from .state import Call, RowState
from .wanted import Wanted

SAMPLED = 16
"""Every so many rows of the normaliser are kept to measure its drift."""
ASKED = 64
"""Queries of a call that are also attended to densely, to measure the recall."""


class Watch:
    """Measures every sparse call a little: the recall of some of its queries, and the drift of its normaliser.

    The normaliser of the sparse attention says what was kept; that of the dense attention, worked out for `ASKED`
    queries spread over the tokens, others at every step, says of how much. Their ratio is the recall of those queries,
    exactly. Values are read at the end of the denoiser's call, all at once, so that an accelerator is not waited for.
    """

    def __init__(self, settings: Wanted, record: AttentionRecord) -> None:
        self.settings, self.record = settings, record
        self._seen: list[tuple[Drift, RowState, Tensor]] = []

    @property
    def wanted(self) -> bool:
        """Whether anything is to be measured, for which the sparse call has to give its normaliser."""
        return self.settings.drift > 0 or self.settings.slack > 0

    def look(self, call: Call, q: Tensor, k: Tensor, v: Tensor, lse: Tensor) -> None:
        """A sparse call whose normaliser is `lse` (B, H, N)."""
        sampled, moment = lse[:, :, ::SAMPLED], call.current.moment
        recall = self._recall(call, q, k, v, lse) if self.settings.slack > 0 else None
        for place, row in enumerate(call.rows):
            state = call.state.rows[row]
            if state.reference is None:
                state.reference = sampled[place].clone()
            drift = (sampled[place] - state.reference).abs().mean()
            seen = Drift(
                run=moment.run,
                step=moment.step,
                branch=moment.branch,
                layer=call.layer.name,
                row=row,
                drift=0.0,
                recall=None,
            )
            values = [drift] if recall is None else [drift, recall[place].mean(), recall[place].amin()]
            self._seen.append((seen, state, torch.stack(values)))

    def _recall(self, call: Call, q: Tensor, k: Tensor, v: Tensor, lse: Tensor) -> Tensor:
        """Share of the mass that some of the queries kept: (B, H), a mean over them."""
        tokens = q.shape[2]
        stride = max(1, tokens // ASKED)
        places = torch.arange(call.current.moment.step * 7 % stride, tokens, stride, device=q.device)
        asked = q.index_select(2, places)
        result = dense_attention(asked, k, v, scale=call.scale, key_lengths=call.lengths, return_lse=True)
        return (lse.index_select(2, places) - result[1]).exp().clamp(max=1.0).mean(-1)

    def settle(self) -> None:
        """Read what was measured in the denoiser's call; rows that need a new search are told so."""
        settings = self.settings
        by_length: dict[int, list[tuple[Drift, RowState, Tensor]]] = {}
        for entry in self._seen:
            by_length.setdefault(len(entry[2]), []).append(entry)
        for entries in by_length.values():
            for (seen, state, _), values in zip(entries, torch.stack([e[2] for e in entries]).tolist(), strict=True):
                seen.drift = values[0]
                drifted = 0 < settings.drift < seen.drift
                if len(values) > 1:
                    _, recall, seen.least_recall = values
                    seen.recall = recall
                    found = recall if state.recall is None else state.recall
                    state.recall = found
                    drifted = drifted or recall < found - settings.slack
                self.record.drifts.append(seen)
                state.drifted = state.drifted or (drifted and state.searches < settings.most_searches)
        self._seen.clear()

    def clear(self) -> None:
        """Forget what was not read yet."""
        self._seen.clear()
