"""The recall of sparse calls is measured on some of their queries (that its fall searches: test_searches)."""

from __future__ import annotations

import pytest
import torch
from larger import adaspa
from test_searches import drifting
from tiny import TinyPipeline, noise

from outpace.accel.attention import watch
from outpace.kernels.attention import BlockIndex, dense_attention, sparse_attention

WAN = "WanTransformer3DModel"
LAYERS = 4


def test_what_is_measured_is_the_recall(monkeypatch: pytest.MonkeyPatch) -> None:
    """With every query asked, the recall of a call whose input is that of the search is the search's own."""
    monkeypatch.setattr(watch, "ASKED", 10_000)
    model = TinyPipeline(WAN).model
    still = noise(model, [0])
    record = drifting(lambda step: still, drift=0.0, slack=0.5).trace.attention
    found = {s.layer: s for s in record.searches}
    assert len(record.drifts) == 19 * LAYERS
    for seen in record.drifts:
        search = found[seen.layer]
        assert search.recall is not None and seen.recall is not None and seen.least_recall is not None
        assert seen.recall == pytest.approx(sum(search.recall) / len(search.recall), abs=1e-4)
        assert seen.least_recall == pytest.approx(min(search.recall), abs=1e-4)
        assert seen.drift < 1e-5


def test_the_ratio_of_normalisers_is_the_share_kept() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, 100, 16, generator=generator, dtype=torch.float64) for _ in range(3))
    keep = torch.rand(1, 2, 7, 7, generator=generator) < 0.5
    keep[..., 0] = True
    index = BlockIndex.from_mask(keep, queries=100, keys=100, query_block=16, key_block=16)
    dense, sparse = dense_attention(q, k, v, return_lse=True)[1], sparse_attention(q, k, v, index, return_lse=True)[1]
    weights = (q @ k.mT / 4).softmax(-1)
    assert torch.allclose((sparse - dense).exp().double(), (weights * index.dense_mask()).sum(-1), atol=1e-6)


def test_samples_are_watched_alone_and_among_others_alike() -> None:
    from outpace.accel import accelerate

    pipe = TinyPipeline(WAN)
    with accelerate(pipe, adaspa(recall=0.6, searches=(0.0,), slack=0.5)) as run:
        pipe(seeds=(3,), steps=6)
        alone = [d.recall for d in run.trace.attention.drifts]
        run.trace.clear()
        pipe(seeds=(1, 3), steps=6)
        among = [d.recall for d in run.trace.attention.drifts if d.row == 1]
    assert alone == pytest.approx(among, abs=1e-5)
