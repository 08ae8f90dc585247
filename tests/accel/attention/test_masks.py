"""Attention masks: padding is hidden exactly, whatever lies where; what cannot be read so stays dense."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from larger import adaspa, larger
from tiny import TinyPipeline, texts
from tiny_models import WIDTH, TinyModel, flux, plain, rectangle
from torch import Tensor, nn

from outpace.accel import GatedTaylor, accelerate
from outpace.accel.attention.redirect import hidden_keys
from outpace.accel.attention.state import Layer

LENGTHS = {0: 5, 1: 3, 2: 4, -1: 2}
"""Words of the text of each seed; the empty text has two."""
CLOSE = 2e-5


def lengths_of(text: Tensor) -> list[int]:
    """How many of a text's tokens are words, told by the seed that its tokens are made from."""
    known = {seed: texts([seed])[0] for seed in LENGTHS}
    return [next(LENGTHS[seed] for seed, made in known.items() if torch.equal(made, one)) for one in text]


def words(text: Tensor, dtype: torch.dtype = torch.bool) -> Tensor:
    """The mask of a batch of texts, True for words."""
    return (torch.arange(text.shape[1]) < torch.tensor(lengths_of(text))[:, None]).to(dtype)


def hunyuan_video(model: nn.Module, x: Tensor, t: Tensor, text: Tensor) -> Tensor:
    pooled, guidance = text.mean(1), torch.full_like(t, 6000.0)
    mask = words(text, torch.long)
    return plain(model, x, t, text, encoder_attention_mask=mask, pooled_projections=pooled, guidance=guidance)


def hunyuan15(model: nn.Module, x: Tensor, t: Tensor, text: Tensor) -> Tensor:
    mask = words(text, torch.long)
    return plain(
        model,
        x,
        t,
        text,
        encoder_attention_mask=mask,
        encoder_hidden_states_2=text[:, :2],
        encoder_attention_mask_2=mask[:, :2],
        image_embeds=torch.zeros(len(x), 2, WIDTH),
    )


def qwen(model: nn.Module, x: Tensor, t: Tensor, text: Tensor) -> Tensor:
    return model(
        hidden_states=x,
        encoder_hidden_states=text,
        encoder_hidden_states_mask=words(text, torch.long),
        timestep=t / 1000,
        img_shapes=[[(1, *rectangle(x.shape[1]))]] * len(x),
        return_dict=False,
    )[0]


def lumina2(model: nn.Module, x: Tensor, t: Tensor, text: Tensor) -> Tensor:
    return plain(model, x, 1 - t / 1000, text, encoder_attention_mask=words(text))


def z_image(model: nn.Module, x: Tensor, t: Tensor, text: Tensor) -> Tensor:
    # Sixteen times the words, so that what is padded to 32 of them differs.
    own = [one[:length].repeat(16, 1) for one, length in zip(text, lengths_of(text), strict=True)]
    return torch.stack(model(list(x.unsqueeze(2)), (1000 - t) / 1000, own, return_dict=False)[0]).squeeze(2)


def mochi(model: nn.Module, x: Tensor, t: Tensor, text: Tensor) -> Tensor:
    # It attends row by row, each to as many tokens as its own text has.
    return plain(model, x, t, text, encoder_attention_mask=words(text))


def chroma(model: nn.Module, x: Tensor, t: Tensor, text: Tensor) -> Tensor:
    # As its pipeline gives it: numbers, which attention adds.
    mask = torch.cat([words(text, x.dtype), x.new_ones(len(x), x.shape[1])], 1)
    return flux(model, x, t, text, attention_mask=mask)


PADDED: dict[str, Callable[..., Tensor]] = {
    "HunyuanVideoTransformer3DModel": hunyuan_video,
    "HunyuanVideo15Transformer3DModel": hunyuan15,
    "QwenImageTransformer2DModel": qwen,
    "Lumina2Transformer2DModel": lumina2,
    "ZImageTransformer2DModel": z_image,
    "MochiTransformer3DModel": mochi,
}
every_padded = pytest.mark.parametrize("cls", list(PADDED))


def padded(cls: str) -> TinyModel:
    """A model that is told where its texts end."""
    return replace(larger(cls), call={**PADDED, "ChromaTransformer2DModel": chroma}[cls])


def test_texts_are_of_different_lengths() -> None:
    assert lengths_of(texts([0, 1, 2, -1])) == [5, 3, 4, 2]


@every_padded
@pytest.mark.parametrize("guidance", ["separate", "batched"])
def test_sparse_attention_that_keeps_everything_is_the_plain_model(cls: str, guidance: str) -> None:
    pipe = TinyPipeline(padded(cls))
    seeds = [0, 1] if guidance == "separate" else [1]
    expected = pipe(seeds, steps=4, guidance=guidance)
    # Nothing is left out, and yet every block goes through the sparse kernel, in the order of tiles.
    with accelerate(pipe, adaspa(recall=0.5, least=1.0, searches=(0.0,), backend="torch")) as run:
        assert (pipe(seeds, steps=4, guidance=guidance) - expected).abs().max() <= CLOSE
    assert run.trace.attention.calls["sparse"] > 0
    assert run.trace.attention.calls["fallback"] == 0
    assert not run.trace.warnings


@every_padded
def test_sparse_attention_hides_padding_as_the_reference_does(cls: str) -> None:
    pipe = TinyPipeline(padded(cls))
    made = []
    for backend in ("auto", "reference"):
        with accelerate(pipe, adaspa(recall=0.5, searches=(0.0,), backend=backend)) as run:
            made.append(pipe([0, 1], steps=4))
        assert run.trace.attention.totals()["density"] < 0.95
    assert (made[0] - made[1]).abs().max() <= CLOSE
    assert (made[0] - pipe([0, 1], steps=4)).abs().max() > 10 * CLOSE


NEVER_LONGER_FOR_OTHERS = ["HunyuanVideoTransformer3DModel", "QwenImageTransformer2DModel", "MochiTransformer3DModel"]
"""A sample alone has as many tokens as among others: their pipelines pad every text to one length, or none."""
some_padded = pytest.mark.parametrize("cls", NEVER_LONGER_FOR_OTHERS)


@some_padded
def test_a_sample_does_not_depend_on_the_texts_beside_its_own(cls: str) -> None:
    pipe = TinyPipeline(padded(cls))
    with accelerate(pipe, adaspa(recall=0.6, searches=(0.0, 0.5), drift=0.0)) as run:
        together = pipe([0, 1, 2], steps=9)
        among = run.trace.attention.searches[:]
        for i, seed in enumerate((0, 1, 2)):
            run.trace.clear()
            assert (pipe([seed], steps=9)[0] - together[i]).abs().max() <= CLOSE
            own = [s.density for s in among if s.row == i]
            assert [s.density for s in run.trace.attention.searches] == own


@some_padded
def test_rows_that_are_forecast_leave_the_others_their_padding(cls: str) -> None:
    pipe = TinyPipeline(padded(cls))
    method = adaspa(recall=0.6, searches=(0.0,), drift=0.0)
    with accelerate(pipe, GatedTaylor(threshold=1e6, gate="paper"), method) as run:
        pipe([0, 1, 2], steps=10)
    errors = next(sorted(c.error) for c in run.trace.calls if None not in c.error)
    gate = GatedTaylor(threshold=(errors[0] + errors[1]) / 2, gate="paper", order=1, correct=False)
    with accelerate(pipe, gate, method) as run:
        together = pipe([0, 1, 2], steps=10)
        assert any(0 < sum(call.computed) < 3 for call in run.trace.calls), "decisions differ"
        for i, seed in enumerate((0, 1, 2)):
            assert (pipe([seed], steps=10)[0] - together[i]).abs().max() <= CLOSE


@some_padded
def test_a_row_left_dense_beside_sparse_ones_keeps_its_padding(cls: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = TinyPipeline(padded(cls))
    method = adaspa(recall=0.6, searches=(0.0,), drift=0.0)
    with accelerate(pipe, method) as run:
        pipe([0, 1, 2], steps=4)
    by_layer = {layer: [] for layer in run.trace.attention.layers}
    for one in run.trace.attention.searches:
        by_layer[one.layer].append(sum(one.density) / len(one.density))
    layer, found = max(by_layer.items(), key=lambda item: max(item[1]) - min(item[1]))
    cut = (min(found) + max(found)) / 2
    assert min(found) < cut < max(found)
    monkeypatch.setattr(Layer, "worth", lambda self, q, density, least: density < cut)
    with accelerate(pipe, method) as run:
        together = pipe([0, 1, 2], steps=4)
        first = [s.kept for s in run.trace.attention.searches if s.layer == layer]
        assert any(first)
        assert not all(first)
        for i, seed in enumerate((0, 1, 2)):
            assert (pipe([seed], steps=4)[0] - together[i]).abs().max() <= CLOSE


def test_a_mask_that_adds_a_bias_stays_dense_and_says_so_once() -> None:
    pipe = TinyPipeline(padded("ChromaTransformer2DModel"))
    expected = pipe([0, 1], steps=4, guidance="separate")
    with accelerate(pipe, adaspa(recall=0.5)) as run:
        assert torch.equal(pipe([0, 1], steps=4, guidance="separate"), expected)
        assert torch.equal(pipe([0, 1], steps=4, guidance="separate"), expected)
    assert run.trace.warnings == ["attention stays dense where its mask adds a bias"]
    assert set(run.trace.attention.calls) == {"fallback"}
    assert run.trace.attention.calls["fallback"] == 2 * 2 * 2 * 4 * 5, "rows, runs, branches, steps, layers"


def random_hidden(seed: int, batch: int, keys: int) -> Tensor:
    hidden = torch.rand(batch, keys, generator=torch.Generator().manual_seed(seed)) < 0.4
    hidden[:, 0] = False
    hidden[:, -1] = True
    return hidden


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 3), st.integers(2, 9), st.booleans(), st.sampled_from(["1", "N", "NN"]))
def test_hidden_keys_are_read_off_every_way_to_write_them(
    seed: int, batch: int, keys: int, numbers: bool, queries: str
) -> None:
    hidden = random_hidden(seed, batch, keys)
    mask = ~hidden[:, None, None, :]
    if queries == "N":
        mask = mask.expand(batch, 2, keys, keys)
    if queries == "NN":  # a query that is hidden sees nothing
        mask = mask & ~hidden[:, None, :, None]
    if numbers:
        mask = torch.where(mask, 0.0, torch.tensor([-torch.inf, -1e9])[seed % 2])
    found, doubt = hidden_keys(mask, batch, keys)
    assert doubt == ""
    assert found is not None
    assert torch.equal(found, hidden)


def test_a_mask_of_one_row_serves_a_batch() -> None:
    hidden = random_hidden(0, 1, 6)
    found, _ = hidden_keys(~hidden[:, None, None], 3, 6)
    assert torch.equal(found, hidden.expand(3, 6))
    found, _ = hidden_keys(~hidden.expand(6, 6), 3, 6)
    assert torch.equal(found, hidden.expand(3, 6)), "(queries, keys)"


@pytest.mark.parametrize(
    "mask",
    [torch.ones(2, 1, 1, 6, dtype=torch.bool), torch.zeros(2, 1, 6, 6), torch.full((2, 1, 6, 6), 0.5), None],
    ids=["all", "nothing added", "the same added to all", "none"],
)
def test_a_mask_that_hides_nothing(mask: Any) -> None:
    assert hidden_keys(mask, 2, 6) == (None, "")


def by_query() -> Tensor:
    return torch.ones(6, 6, dtype=torch.bool).tril()[None, None]


def by_head() -> Tensor:
    mask = torch.ones(1, 2, 1, 6, dtype=torch.bool)
    mask[0, 1, 0, 3:] = False
    return mask


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (by_query(), "differs between queries"),
        (by_head(), "differs between heads"),
        (torch.arange(6.0)[None, None, None], "adds a bias"),
        (torch.ones(2, 6, 6, dtype=torch.bool), r"shape \(2, 6, 6\)"),
        (torch.ones(2, 1, 1, 5, dtype=torch.bool), r"shape \(2, 1, 1, 5\)"),
    ],
)
def test_a_mask_that_cannot_be_read(mask: Tensor, reason: str) -> None:
    found, doubt = hidden_keys(mask, 2, 6)
    assert found is None
    assert re.search(reason, doubt)
