"""What recall says about the output, on the attention of a trained pocket: identities, bounds, and what is reported.

Shapes: B batch, H heads, N tokens, D width, R x C blocks.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel
from hypothesis import given, settings
from hypothesis import strategies as st
from larger import adaspa, larger
from tiny import TinyPipeline
from torch import Tensor

from outpace.accel import accelerate
from outpace.accel.attention import engine, search
from outpace.accel.attention.redirect import Attended, Redirect
from outpace.accel.attention.search import index_of
from outpace.accel.attention.selection import ERROR_STARTS_AT, select
from outpace.accel.attention.watch import Watch
from outpace.kernels.attention import BlockIndex, block_mass, dense_attention, sparse_attention
from outpace.kernels.attention.reference import reference_dense, reference_mass, reference_sparse

BLOCK, RECALLS = 16, [0.5, 0.8, 0.95]
EXACT = 1e-6
QKV = tuple[Tensor, Tensor, Tensor]


@pytest.fixture(scope="module")
def learned(root: Any) -> list[QKV]:
    """Queries, keys and values of three layers of the trained pocket for clips, half-way from noise: 243 tokens."""
    folder = root / "pipelines" / "pocket" / "weights" / "wan" / "transformer"
    transformer = WanTransformer3DModel.from_pretrained(folder).eval()
    generator = torch.Generator().manual_seed(0)
    seen: list[Attended] = []

    def note(attended: Attended, dense: Any) -> Tensor:
        seen.append(attended)
        return dense()

    with torch.no_grad(), Redirect(note):
        transformer(
            hidden_states=torch.randn(1, 8, 3, 18, 18, generator=generator),
            timestep=torch.tensor([500.0]),
            encoder_hidden_states=torch.randn(1, 16, 64, generator=generator),
        )
    return [(seen[layer].query, seen[layer].key, seen[layer].value) for layer in (2, 10, 18)]


def nothing_always(tokens: int) -> Tensor:
    blocks = -(-tokens // BLOCK)
    return torch.zeros(blocks, blocks, dtype=torch.bool)


def weights(q: Tensor, k: Tensor) -> Tensor:
    """The attention matrix in float64, worked out here: (B, H, N, N)."""
    return (q.double() @ k.double().mT / q.shape[-1] ** 0.5).softmax(-1)


def kept_mass(q: Tensor, k: Tensor, index: BlockIndex) -> Tensor:
    """The mass that every query keeps, (B, H, N)."""
    return (weights(q, k) * index.dense_mask()).sum(-1)


def chosen(qkv: QKV, recall: float) -> BlockIndex:
    """What a search in float64 keeps."""
    q, k, v = qkv
    _, lse = reference_dense(q, k, v)
    mass = reference_mass(q, k, lse, query_block=BLOCK, key_block=BLOCK)
    method = adaspa(recall=recall, block=BLOCK)
    return index_of(select(mass, method, nothing_always(q.shape[2])).keep, method, q.shape[2], None)


def complement(index: BlockIndex) -> BlockIndex:
    """The index of everything that was dropped."""
    sizes = {"queries": index.queries, "keys": index.keys, "query_block": BLOCK, "key_block": BLOCK}
    return BlockIndex.from_mask(~index.mask(), **sizes)


def by_blocks(rows: Tensor) -> Tensor:
    """Means over the queries of each block: (B, H, N) -> (B, H, R)."""
    return torch.stack([part.mean(-1) for part in rows.split(BLOCK, -1)], -1)


@pytest.mark.parametrize("recall", RECALLS)
def test_the_dropped_mass_is_what_was_allowed(learned: list[QKV], recall: float) -> None:
    """With the kernels that run, against an attention matrix in float64."""
    for q, k, v in learned:
        result = dense_attention(q, k, v, return_lse=True)
        mass = block_mass(q, k, result[1], query_block=BLOCK, key_block=BLOCK)
        method = adaspa(recall=recall, block=BLOCK)
        found = select(mass, method, nothing_always(q.shape[2]))
        rows = by_blocks(kept_mass(q, k, index_of(found.keep, method, q.shape[2], None)))
        assert (1 - rows).max() <= 1 - recall + EXACT
        assert found.density.mean() < 1, "something was left out"
        assert (found.recall - rows.mean(-1)).abs().max() <= EXACT
        assert (found.least_recall - rows.amin(-1)).abs().max() <= EXACT


@pytest.mark.parametrize("recall", RECALLS)
def test_the_two_normalisers_tell_the_recall(learned: list[QKV], recall: float) -> None:
    for q, k, v in learned:
        index = chosen((q, k, v), recall)
        kept = kept_mass(q, k, index)
        (_, dense), (_, sparse) = reference_dense(q, k, v), reference_sparse(q, k, v, index)
        assert ((sparse - dense).exp() - kept).abs().max() <= EXACT
        dense, sparse = (
            dense_attention(q, k, v, return_lse=True)[1],
            sparse_attention(q, k, v, index, return_lse=True)[1],
        )
        assert ((sparse - dense).double().exp() - kept).abs().max() <= 1e-5


@pytest.mark.parametrize("recall", RECALLS)
def test_the_error_is_what_was_dropped_times_how_it_differs(learned: list[QKV], recall: float) -> None:
    for q, k, v in learned:
        index = chosen((q, k, v), recall)
        (truth, _), (kept, _) = reference_dense(q, k, v), reference_sparse(q, k, v, index)
        dropped, _ = reference_sparse(q, k, v, complement(index))
        lost = 1 - kept_mass(q, k, index)[..., None]
        assert ((kept - truth) - lost * (kept - dropped)).abs().max() <= EXACT
        assert (kept - truth).abs().max() > 1e-3, "there is an error to explain"


def violation(q: Tensor, k: Tensor, v: Tensor, index: BlockIndex, output: Tensor) -> float:
    """How far the error of `output` exceeds 2 (1 - recall) max |v - centre|, for the centres 0 and mean of v."""
    truth, _ = reference_dense(q, k, v)
    error = (output.double() - truth).norm(dim=-1)
    lost = 1 - kept_mass(q, k, index)
    centred = v.double() - v.double().mean(2, keepdim=True)
    return max(
        float((error - 2 * lost * values.norm(dim=-1).amax(-1, keepdim=True)).max()) for values in (v.double(), centred)
    )


@pytest.mark.parametrize("recall", RECALLS)
def test_the_bound_holds_for_the_kernels_that_run(learned: list[QKV], recall: float) -> None:
    for q, k, v in learned:
        index = chosen((q, k, v), recall)
        assert violation(q, k, v, index, reference_sparse(q, k, v, index)[0]) <= 1e-9
        assert violation(q, k, v, index, sparse_attention(q, k, v, index)) <= 1e-5


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**16), st.integers(20, 90), st.floats(0.1, 0.9), st.sampled_from([0.3, 2.0, 8.0]))
def test_the_bound_is_never_violated(seed: int, tokens: int, density: float, sharpness: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(2, 2, tokens, 8, generator=generator) for _ in range(3))
    blocks = -(-tokens // BLOCK)
    keep = torch.rand(2, 2, blocks, blocks, generator=generator) < density
    keep[..., 0] |= ~keep.any(-1)
    sizes = {"queries": tokens, "keys": tokens, "query_block": BLOCK, "key_block": BLOCK}
    index = BlockIndex.from_mask(keep, **sizes)
    q = sharpness * q
    assert violation(q, k, v, index, reference_sparse(q, k, v, index)[0]) <= 1e-9


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What every search of an engine was given and gave."""
    seen: list[dict[str, Any]] = []

    def note(q: Tensor, k: Tensor, v: Tensor, *rest: Any, **options: Any) -> Any:
        found = search.search(q, k, v, *rest, **options)
        seen.append({"q": q, "k": k, "v": v, "keep": found[0].selection.keep})
        return found

    monkeypatch.setattr(engine, "search", note)
    return seen


@pytest.mark.parametrize("cls", ["WanTransformer3DModel", "HunyuanVideoTransformer3DModel", "FluxTransformer2DModel"])
def test_the_record_reports_what_was_kept(cls: str, searched: list[dict[str, Any]]) -> None:
    method = adaspa(recall=0.6, searches=(0.0, 0.5))
    with accelerate(TinyPipeline(larger(cls)), method) as run:
        run._target([0, 1], steps=10)
    record = iter(run.trace.attention.searches)
    for seen in searched:
        index = index_of(seen["keep"], method, seen["q"].shape[2], None)
        rows = by_blocks(kept_mass(seen["q"], seen["k"], index))
        for sample in range(2):
            one = next(record)
            assert one.row == sample
            assert one.recall == pytest.approx(rows[sample].mean(-1).tolist(), abs=EXACT)
            assert one.least_recall == pytest.approx(rows[sample].amin(-1).tolist(), abs=EXACT)
            assert one.density == pytest.approx(seen["keep"][sample].double().mean((1, 2)).tolist())
            assert min(one.least_recall) >= 0.6 - EXACT
    assert next(record, None) is None
    assert len(searched) == 2 * len(run.trace.attention.layers)


@pytest.mark.parametrize(
    ("cls", "close"), [("tiny", EXACT), ("larger", 0.02)], ids=["every query is asked", "some queries are asked"]
)
def test_the_recall_of_sparse_calls_is_the_mass_they_keep(
    cls: str, close: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = TinyPipeline(larger("WanTransformer3DModel") if cls == "larger" else "WanTransformer3DModel")
    truth: list[tuple[float, float]] = []
    look = Watch.look

    def note(self: Watch, call: Any, q: Tensor, k: Tensor, v: Tensor, lse: Tensor) -> None:
        for place, row in enumerate(call.rows):
            one = slice(place, place + 1)
            heads = kept_mass(q[one], k[one], call.state.rows[row].index)[0].mean(-1)
            truth.append((float(heads.mean()), float(heads.amin())))
        look(self, call, q, k, v, lse)

    monkeypatch.setattr(Watch, "look", note)
    with accelerate(pipe, adaspa(recall=0.6, slack=1.0, searches=(0.0,))) as run:
        pipe([0, 1], steps=6)
    seen = [(d.recall, d.least_recall) for d in run.trace.attention.drifts]
    assert len(seen) == 2 * 4 * 5, "rows, layers, sparse steps"
    assert torch.tensor(seen) == pytest.approx(torch.tensor(truth), abs=close)
    totals = run.trace.attention.totals()
    assert totals["recall_later"] == pytest.approx(sum(mean for mean, _ in truth) / len(truth), abs=close)


def relative_error(q: Tensor, k: Tensor, v: Tensor, keep: Tensor, method: Any) -> Tensor:
    """||o_kept - o|| / ||o|| of every head, (B, H), in float64."""
    truth, _ = reference_dense(q, k, v)
    output, _ = reference_sparse(q, k, v, index_of(keep, method, q.shape[2], None))
    return (output - truth).flatten(2).norm(dim=2) / truth.flatten(2).norm(dim=2)


@pytest.mark.parametrize("accepted", [0.02, 0.05, 0.1])
def test_the_error_that_is_accepted_is_about_the_error_there_is(learned: list[QKV], accepted: float) -> None:
    method = adaspa(error=accepted, block=BLOCK)
    for q, k, v in learned:
        output, lse = dense_attention(q, k, v, return_lse=True)
        always = nothing_always(q.shape[2])
        (found,) = search.search(q, k, v, lse, method, always, dense=output, scale=None, lengths=None)
        assert found.error is not None
        tried = chosen((q, k, v), ERROR_STARTS_AT).mask()
        assert (found.error - relative_error(q, k, v, tried, method)).abs().max() <= 1e-4
        reached = relative_error(q, k, v, found.selection.keep, method)
        assert (reached <= 1.5 * accepted).all()
        over = found.error > accepted
        assert (reached < found.error)[over].all()
        assert torch.equal(reached[~over], relative_error(q, k, v, tried, method)[~over])


def test_groups_of_heads_find_what_all_find_together(learned: list[QKV], monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = (torch.cat(parts) for parts in zip(*learned, strict=True))
    output, lse = dense_attention(q, k, v, return_lse=True)
    for method in (adaspa(recall=0.9), adaspa(error=0.05)):
        given = (method, nothing_always(q.shape[2]))
        (whole,) = search.search(q, k, v, lse, *given, dense=output, scale=None, lengths=None)
        monkeypatch.setattr(search, "MASS_BYTES", 3 * 4 * 16 * 16)  # three of the four heads at a time
        (parts,) = search.search(q, k, v, lse, *given, dense=output, scale=None, lengths=None)
        monkeypatch.undo()
        assert torch.equal(parts.selection.keep, whole.selection.keep)
        assert torch.equal(parts.selection.recall, whole.selection.recall)
        assert (parts.error is None) == (whole.error is None)
        if parts.error is not None and whole.error is not None:
            assert torch.allclose(parts.error, whole.error)


def test_what_is_found_for_a_sample_does_not_depend_on_its_batch(
    learned: list[QKV], monkeypatch: pytest.MonkeyPatch
) -> None:
    q, k, v = (torch.cat(parts) for parts in zip(*learned, strict=True))
    output, lse = dense_attention(q, k, v, return_lse=True)
    monkeypatch.setattr(search, "MASS_BYTES", 5 * 4 * 16 * 16)
    methods = [
        adaspa(recall=0.9),
        adaspa(sparsity=0.7),
        adaspa(density=0.4),
        adaspa(error=0.03),
        adaspa(recall=0.8, per="head"),
    ]
    for method in methods:
        given = (method, nothing_always(q.shape[2]))
        (together,) = search.search(q, k, v, lse, *given, dense=output, scale=None, lengths=None)
        for i in range(len(q)):
            one = slice(i, i + 1)
            (alone,) = search.search(
                q[one], k[one], v[one], lse[one], *given, dense=output[one], scale=None, lengths=None
            )
            assert torch.equal(alone.selection.keep[0], together.selection.keep[i])
