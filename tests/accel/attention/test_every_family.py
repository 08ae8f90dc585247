"""What sparse attention is held to in every class that a family names."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from larger import PLACES, adaspa, larger
from tiny import TinyPipeline
from tiny_models import TINY_MODELS

from outpace.accel import FAMILIES, GatedTaylor, accelerate
from outpace.accel.denoiser import Interception
from outpace.errors import UnsupportedModelError

every_sparse_model = pytest.mark.parametrize("cls", list(PLACES))
QUICK = ("FluxTransformer2DModel", "HunyuanVideoTransformer3DModel", "SD3Transformer2DModel", "MochiTransformer3DModel")
some_sparse_models = pytest.mark.parametrize(
    "cls", [*QUICK, *(pytest.param(cls, marks=pytest.mark.slow) for cls in PLACES if cls not in QUICK)]
)
LINEAR = "SanaTransformer2DModel"
CLOSE = 2e-5
SEEDS = [0, 1, 2, 3]


@functools.cache
def plain_run(cls: str) -> tuple[TinyPipeline, torch.Tensor]:
    """A pipeline that every test restores, and what it makes by itself."""
    pipe = TinyPipeline(larger(cls))
    return pipe, pipe([0, 1], steps=2)


def everything(pipe: TinyPipeline) -> dict[str, Any]:
    """What a change could leave behind: every attribute of every module, processor and of the scheduler."""
    found: dict[str, Any] = {}
    owners: list[tuple[str, Any]] = [
        *pipe.transformer.named_modules(prefix="transformer"),
        ("scheduler", pipe.scheduler),
    ]
    for name, module in pipe.transformer.named_modules(prefix="transformer"):
        if hasattr(module, "processor"):
            found[f"{name}.processor is"] = id(module.processor)
            owners.append((f"{name}.processor", module.processor))
    for owner, thing in owners:
        for name, value in vars(thing).items():
            simple = isinstance(value, (bool, int, float, str, tuple, type(None)))
            found[f"{owner}.{name}"] = value if simple else list(value) if isinstance(value, dict) else type(value)
    return found


def test_every_class_is_placed() -> None:
    assert set(PLACES) == set(TINY_MODELS) - {LINEAR}


DENSE = {cls: stack.dense for _, f in FAMILIES.items() for stack in f.stacks if stack.dense for cls in f.transformers}


@pytest.mark.parametrize("cls", DENSE)
def test_attention_that_cannot_be_made_sparse_is_refused_with_the_reason(cls: str) -> None:
    pipe = TinyPipeline(cls)
    before = everything(pipe)
    with pytest.raises(UnsupportedModelError, match=f"the self-attention of {cls} cannot be made sparse") as refused:
        accelerate(pipe, adaspa(sparsity=0.5))
    assert DENSE[cls] in str(refused.value) and everything(pipe) == before


@every_sparse_model
def test_exact_settings_are_bit_identical(cls: str) -> None:
    pipe = TinyPipeline(cls)
    plain = pipe([0, 1], steps=2)
    for method in (adaspa(recall=1.0), adaspa(sparsity=0.0), adaspa(density=1.0)):
        with accelerate(pipe, method) as run:
            assert torch.equal(pipe([0, 1], steps=2), plain)
        assert set(run.trace.attention.calls) == {"dense"}
        assert run.trace.totals()["predicted_speedup"] == 1.0
        assert not run.trace.warnings


@every_sparse_model
def test_restore_leaves_nothing_behind(cls: str) -> None:
    pipe, plain = plain_run(cls)
    before = everything(pipe)
    run = accelerate(pipe, adaspa(recall=0.5, searches=(0.0,)))
    assert everything(pipe) != before
    changed = pipe([0, 1], steps=2)
    assert not torch.equal(changed, plain)
    run.restore()
    run.restore()
    assert everything(pipe) == before
    assert not any(isinstance(m._compiled_call_impl, Interception) for m in pipe.transformer.modules())
    assert torch.equal(pipe([0, 1], steps=2), plain)


@every_sparse_model
def test_keeping_everything_through_the_sparse_kernel_is_the_plain_model(cls: str) -> None:
    """Order, text, scale, grouped heads and masks: nothing may be lost on the way there and back."""
    pipe, plain = plain_run(cls)
    with accelerate(pipe, adaspa(recall=0.5, least=1.0, searches=(0.0,), backend="torch")) as run:
        assert (pipe([0, 1], steps=2) - plain).abs().max() <= CLOSE * plain.abs().max()
    assert set(run.trace.attention.calls) == {"dense", "mass", "sparse"}
    assert run.trace.attention.backends["sparse"] == "torch"


@some_sparse_models
def test_sparse_is_what_a_masked_attention_in_float64_gives(cls: str) -> None:
    pipe, plain = plain_run(cls)
    made = []
    for backend in ("auto", "reference"):
        with accelerate(pipe, adaspa(recall=0.5, searches=(0.0,), backend=backend)) as run:
            made.append(pipe([0, 1], steps=2))
        assert run.trace.attention.totals()["density"] < 0.9
    close = CLOSE * plain.abs().max()
    assert (made[0] - made[1]).abs().max() <= close
    assert (made[0] - plain).abs().max() > 0


@some_sparse_models
def test_a_sample_never_depends_on_its_batch(cls: str) -> None:
    """Some rows are forecast while others run: each keeps its own pattern."""
    pipe, _ = plain_run(cls)
    sparse = adaspa(recall=0.6, searches=(0.0, 0.5), drift=0.0)
    with accelerate(pipe, GatedTaylor(threshold=1e6, gate="paper", order=1, correct=False), sparse) as run:
        pipe(SEEDS, steps=10)
    errors = next(sorted(c.error) for c in run.trace.calls if None not in c.error)
    threshold = (errors[1] * errors[2]) ** 0.5
    gate = GatedTaylor(threshold=threshold, gate="paper", order=1, correct=False)
    with accelerate(pipe, gate, sparse) as run:
        together = pipe(SEEDS, steps=10)
        calls, searches = run.trace.calls[:], run.trace.attention.searches[:]
        assert any(0 < sum(c.computed) < len(SEEDS) for c in calls)
        for i, seed in enumerate(SEEDS):
            run.trace.clear()
            alone = pipe([seed], steps=10)
            assert [c.computed[0] for c in run.trace.calls] == [c.computed[i] for c in calls]
            assert [s.density for s in run.trace.attention.searches] == [s.density for s in searches if s.row == i]
            assert (together[i] - alone[0]).abs().max() <= CLOSE * together.abs().max()


def test_guidance_batched_in_one_tensor_gives_every_row_its_own_pattern() -> None:
    pipe = TinyPipeline(larger("FluxTransformer2DModel"))
    with accelerate(pipe, adaspa(recall=0.6, searches=(0.0,), drift=0.0)) as run:
        together = pipe([0, 1], steps=5, guidance="batched")
        assert {s.row for s in run.trace.attention.searches} == {0, 1, 2, 3}
        for i in range(2):
            assert (pipe([i], steps=5, guidance="batched")[0] - together[i]).abs().max() <= 2 * CLOSE


def test_guidance_that_ends_midway_starts_other_rows() -> None:
    pipe = TinyPipeline(larger("WanTransformer3DModel"))
    with accelerate(pipe, adaspa(recall=0.6, searches=(0.0,), drift=0.0)) as run:
        assert pipe([0], steps=10, guidance="batched", guided_steps=5).isfinite().all()
    assert sorted({(s.step, s.row) for s in run.trace.attention.searches}) == [(0, 0), (0, 1), (5, 0)]
