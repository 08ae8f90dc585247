"""What only sees the prompt or reference pictures is computed once a run: the same pictures, and what is saved."""

from __future__ import annotations

import gc
import re
import weakref
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import diffusers
import pytest
import real_pipelines as real
import torch
from diffusers.hooks import apply_group_offloading
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit
from tiny import AdapterLayer, TinyPipeline, noise, texts
from tiny_models import SPECIMENS
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from outpace.accel import (
    FAMILIES,
    ExactReuse,
    Family,
    GatedTaylor,
    IntervalTaylor,
    accelerate,
    check_family,
    find_family,
    register_family,
)
from outpace.accel.estimate.parts import pieces_of
from outpace.accel.estimate.recording import record_call
from outpace.accel.families.family import modules_at
from outpace.errors import ConfigError, ConflictError, UnsupportedModelError

FLUX, WAN, PIXART, Z_IMAGE = (
    *("FluxTransformer2DModel", "WanTransformer3DModel", "PixArtTransformer2DModel", "ZImageTransformer2DModel"),
)
FLUX3, QWEN, NUCLEUS = "Flux3Transformer2DModel", "QwenImageTransformer2DModel", "NucleusMoEImageTransformer2DModel"
QUICK = (FLUX, WAN, PIXART, Z_IMAGE, FLUX3, QWEN)
FORECASTS = IntervalTaylor(interval=3, warmup=2)
WITH_CONSTANT = [cls for _, family in FAMILIES.items() if family.constant for cls in family.transformers]


def reused(run: Any) -> tuple[int, int]:
    """Calls of watched modules, and those that were not made."""
    return run.trace.reuse.calls, run.trace.reuse.reused


@pytest.mark.parametrize(
    "cls", [cls if cls in QUICK else pytest.param(cls, marks=pytest.mark.slow) for cls in WITH_CONSTANT]
)
def test_beside_forecasts_nothing_changes_and_all_but_the_first_is_saved(cls: str) -> None:
    pipe = TinyPipeline(cls)
    with accelerate(pipe, FORECASTS):
        expected = pipe([0, 1], steps=5, guidance="separate")
    with accelerate(pipe, FORECASTS, ExactReuse()) as run:
        made = pipe([0, 1], steps=5, guidance="separate")
    assert torch.equal(made, expected)
    calls, left_out = reused(run)
    assert left_out > 0
    assert calls - left_out == sum(1 for _ in once_a_branch(pipe, cls)), "computed once a branch, whatever is given"


def once_a_branch(pipe: TinyPipeline, cls: str) -> Iterator[str]:
    """Every call of a watched module in one step of two branches, in those that fill a cache before it left out."""
    made: list[str] = []
    watched = modules_at(pipe.transformer, find_family(pipe.transformer).constant)
    # What a watched module computes inside itself is no call that was asked about, where it is watched, too.
    hooks = [
        module.register_forward_hook(lambda *_, path=path: made.append(path))
        for path, module in watched.items()
        if not any(path.startswith(f"{other}.") for other in watched)
    ]
    pipe([0, 1], steps=1, guidance="separate")
    for hook in hooks:
        hook.remove()
    passes = 1 + SPECIMENS[cls].before  # each with the text of its branch
    assert len(made) % passes == 0
    yield from made[: len(made) // passes]


def saved(pipe: Any, call: Callable[[], torch.Tensor], *methods: Any) -> tuple[float, Any]:
    """Share of a run's operations that ExactReuse saves beside `methods`; nothing changes by it."""

    def counted(*given: Any) -> tuple[torch.Tensor, int, Any]:
        # torch has no formula for the fused attention of CPUs; written out it is two products.
        with accelerate(pipe, *given) as run, sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            made = call()
        return made, counter.get_total_flops(), run

    expected, all_of_it, _ = counted(*methods or (GatedTaylor(threshold=0.0),))
    made, some, run = counted(*methods, ExactReuse())
    assert torch.equal(made, expected)
    return 1 - some / all_of_it, run


def qwen_edit(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Qwen-Image-Edit around a tiny transformer, at a size that its pipeline does not offer."""
    monkeypatch.setattr(pipeline_qwenimage_edit, "calculate_dimensions", lambda *_: (32, 32, None))
    settings = {"in_channels": 16, "out_channels": 4, "patch_size": 2}
    pipe = diffusers.QwenImageEditPipeline(
        transformer=SPECIMENS[QWEN].build(**settings),
        scheduler=real.DYNAMIC(),
        vae=real.qwen_autoencoder(),
        text_encoder=None,
        tokenizer=None,
        processor=None,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def edited(pipe: Any) -> torch.Tensor:
    seed = torch.Generator().manual_seed(0)
    call = {"image": real.picture(32), "height": 32, "width": 32, **real.masked_text()}
    return pipe(num_inference_steps=9, generator=seed, output_type="latent", true_cfg_scale=1.0, **call)[0]


def on_the_page(root: Path) -> dict[str, list[float]]:
    """Shares in per cent that docs/exact_reuse.md says of tiny pipelines."""
    page = (root / "docs" / "exact_reuse.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w+Pipeline) \| ([\d.]+) % \| ([\d.]+) % \|$", page, re.MULTILINE)
    return {name: [float(share) for share in shares] for name, *shares in rows}


NINE_STEPS = ("FluxKontextPipeline", "QwenImageEditPipeline", "WanPipeline", "PixArtAlphaPipeline", "ZImagePipeline")


@pytest.mark.parametrize("name", NINE_STEPS)
def test_pipelines_make_the_same_pictures_and_save_what_the_page_says(
    name: str, monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    edit = name == "QwenImageEditPipeline"
    pipe = qwen_edit(monkeypatch) if edit else real.build(name)
    found = []
    for methods in ((), (FORECASTS,)):
        share, run = saved(pipe, (lambda: edited(pipe)) if edit else (lambda: real.run(name, pipe)), *methods)
        calls, left_out = reused(run)
        assert left_out > 0 and (methods or left_out == calls * 8 // 9)
        found.append(share)
    assert [round(100 * share, 1) for share in found] == on_the_page(root)[name]
    assert min(found) > 0


def test_the_page_speaks_of_all_of_them(root: Path) -> None:
    assert tuple(on_the_page(root)) == NINE_STEPS


def test_blocks_that_only_see_text_and_references_run_once() -> None:
    pipe = TinyPipeline(FLUX3)
    ran: list[int] = []
    blocks = [*pipe.transformer.txt_mode_blocks, *pipe.transformer.mode_blocks.image_cond]
    for place, block in enumerate(blocks):
        block.register_forward_pre_hook(lambda *_, place=place: ran.append(place))
    with accelerate(pipe, ExactReuse()) as run:
        pipe(steps=4)
    # A hook of somebody else has to see every call, so these are computed; taken off, they are not.
    assert len(ran) == 4 * len(blocks) > 0
    for block in blocks:
        block._forward_pre_hooks.clear()
    share, run = saved(pipe, lambda: pipe(steps=4))
    assert share > 0.1
    assert reused(run)[1] == reused(run)[0] * 3 // 4


@pytest.fixture
def named() -> Iterator[Callable[[str, tuple[str, ...]], type]]:
    """Registers a class with another's data and other names of what is constant; takes it back afterwards."""
    names: list[str] = []

    def name(cls: str, constant: tuple[str, ...]) -> type:
        plain = type(SPECIMENS[cls].build())
        right = find_family(SPECIMENS[cls].build())
        kept = {f.name: getattr(right, f.name) for f in fields(Family)}
        made = f"Named{cls}"
        register_family(Family(**{**kept, "name": made, "transformers": (made,), "constant": constant}))
        names.append(made)
        return type(made, (plain,), {})

    yield name
    for made in names:
        FAMILIES.remove(made)


@pytest.mark.parametrize(
    ("cls", "wrong"),
    [
        (FLUX, "single_transformer_blocks.*.attn.to_k"),
        (QWEN, "transformer_blocks.*.attn.to_v"),
        (NUCLEUS, "transformer_blocks.*.attn.to_k"),
    ],
)
def test_keys_of_tokens_that_see_the_timestep_are_not_constant(
    cls: str, wrong: str, named: Callable[[str, tuple[str, ...]], type]
) -> None:
    """Reference tokens of Kontext and Qwen-Image-Edit lie among them: named by mistake, they cost no picture."""
    pipe = TinyPipeline(cls)
    plain = pipe(steps=3)
    pipe.transformer.__class__ = named(cls, (wrong,))
    found = check_family(pipe.transformer, lambda seeds: SPECIMENS[cls].inputs(seeds, pipe.transformer))
    (line,) = [finding.line() for finding in found if finding.passed is False]
    assert "constant" in line and wrong.split(".")[-1] in line
    with accelerate(pipe, ExactReuse()) as run:
        assert torch.equal(pipe(steps=3), plain)
    assert reused(run)[1] == 0


def test_every_name_names_something_in_a_class_of_its_family() -> None:
    for _, family in FAMILIES.items():
        models = [SPECIMENS[cls].build() for cls in family.transformers] if family.constant else []
        for pattern in family.constant:
            parent = pattern.rpartition(".")[0] or pattern  # of an attention's keys not every one is in every class
            assert any(modules_at(model, (parent,)) for model in models), (family.name, pattern)


class Scaled(nn.Module):
    """A layer with an adapter that does something."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.adapter = inner, AdapterLayer()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) * self.adapter.scaling["style"]


def test_another_scale_of_an_adapter_inside_a_run_is_followed() -> None:
    pipe = TinyPipeline(FLUX)
    pipe.transformer._hf_peft_config_loaded = True
    scaled = pipe.transformer.context_embedder = Scaled(pipe.transformer.context_embedder)
    scaled.eval()

    def change(step: int, latents: torch.Tensor) -> None:
        scaled.adapter.scaling["style"] = 1.0 if step < 2 else 0.3

    scaled.adapter.scaling["style"] = 1.0
    plain = pipe(steps=6, callback=change)
    scaled.adapter.scaling["style"] = 1.0
    with accelerate(pipe, ExactReuse()) as run:
        assert torch.equal(pipe(steps=6, callback=change), plain)
    assert reused(run)[1] == 2 * 4, "two modules, computed once before the change and once after it"


@pytest.mark.parametrize("in_place", [True, False])
def test_other_text_inside_a_run_is_followed(in_place: bool) -> None:
    def drive(pipe: TinyPipeline) -> torch.Tensor:
        x, text = noise(pipe.model, [0]), texts([0])
        pipe.scheduler.set_timesteps(6)
        for step, t in enumerate(pipe.scheduler.timesteps):
            if step == 3:
                text = text.mul_(0.5) if in_place else text * 0.5
            with torch.no_grad():
                out = pipe.model.call(pipe.transformer, x, t.expand(1).float(), text)
            x = pipe.scheduler.step(out, t, x, return_dict=False)[0]
        return x

    for cls in (PIXART, Z_IMAGE):
        pipe = TinyPipeline(cls)
        plain = drive(pipe)
        with accelerate(pipe, ExactReuse()) as run:
            assert torch.equal(drive(pipe), plain)
        assert 0 < reused(run)[1] < reused(run)[0] * 5 // 6


class Writes(nn.Module):
    """Writes to what it is given."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x.mul_(2.0))


def test_a_result_that_somebody_writes_to_is_not_handed_out_again() -> None:
    pipe = TinyPipeline(WAN)
    for block in pipe.transformer.blocks:  # all of them write to the one projection of the text
        block.attn2.to_k = Writes(block.attn2.to_k).eval()
    plain = pipe(steps=4)
    with accelerate(pipe, ExactReuse()) as run:
        assert torch.equal(pipe(steps=4), plain)
    assert run.trace.reuse.calls > 0


def test_no_more_is_kept_than_may_be_and_nothing_after_the_run() -> None:
    pipe = TinyPipeline(WAN)
    plain = pipe(steps=4)
    with accelerate(pipe, ExactReuse()) as run:
        pipe(steps=4)
        most, all_of_it = run.trace.reuse.most_bytes, reused(run)[1]
        assert "exact reuse: " in run.summary()
    half = most // 2
    seen: list[weakref.ref[torch.Tensor]] = []
    hook = pipe.transformer.condition_embedder.register_forward_hook(
        lambda _, __, out: seen.append(weakref.ref(out[2]))
    )
    with accelerate(pipe, ExactReuse(gigabytes=half / 1e9)) as run:
        assert torch.equal(pipe(steps=4), plain)
        assert 0 < run.trace.reuse.most_bytes <= half and 0 < reused(run)[1] < all_of_it
        gc.collect()
        assert len(seen) == 4 and seen[0]() is None
    hook.remove()
    with accelerate(pipe, ExactReuse(gigabytes=0)) as run:
        assert torch.equal(pipe(steps=4), plain)
        assert reused(run)[1] == 0 == run.trace.reuse.most_bytes


def test_under_inference_mode_writes_cannot_be_seen_so_all_is_computed() -> None:
    pipe = TinyPipeline(PIXART)
    plain = pipe(steps=3)
    with accelerate(pipe, ExactReuse()) as run, torch.inference_mode():
        assert torch.equal(pipe(steps=3), plain)
    assert reused(run)[1] == 0


@pytest.mark.parametrize("kind", ["block_level", "leaf_level"])
def test_beside_offloaded_groups(kind: str) -> None:
    pipe = TinyPipeline(PIXART)
    plain = pipe(steps=3)
    cpu = torch.device("cpu")
    apply_group_offloading(pipe.transformer, cpu, cpu, offload_type=kind, num_blocks_per_group=1)
    with accelerate(pipe, ExactReuse()) as run:
        assert torch.equal(pipe(steps=3), plain)
    # A leaf that is offloaded by itself fetches the one after it: none may be passed over.
    assert (reused(run)[1] > 0) == (kind == "block_level")


def test_compiled_blocks_stay_whole_and_compute_their_own() -> None:
    pipe = TinyPipeline(WAN)
    plain = pipe(steps=3)
    torch.compiler.reset()
    with accelerate(pipe, ExactReuse()) as run:
        pipe.transformer.compile_repeated_blocks(fullgraph=True, backend="eager")
        assert torch.equal(pipe(steps=3), plain)
    assert reused(run) == (3, 2), "the projection of the text, which is outside of the blocks"
    torch.compiler.reset()


def test_a_speedup_and_presets_bring_it_along() -> None:
    pipe = TinyPipeline(QWEN)
    for asked in ({"speedup": 2.0}, {"preset": "fast"}):
        with accelerate(pipe, **asked) as run:
            pipe(steps=6)
        assert [method.name for method in run.methods] == ["scheduled_taylor"]
        assert [told["method"] for told in run.trace.methods] == ["scheduled_taylor", "exact_reuse"]
        asked_for = 2 * run.trace.totals()["computed"]  # in a call without a block, nothing of it
        assert reused(run) == (asked_for, asked_for - 2)
    with accelerate(TinyPipeline("DiTTransformer2DModel"), speedup=2.0) as run:
        assert [told["method"] for told in run.trace.methods] == ["scheduled_taylor"]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="nothing in DiTTransformer2DModel is known"):
        accelerate(TinyPipeline("DiTTransformer2DModel"), ExactReuse())
    with pytest.raises(ConflictError, match="both take the reuse"):
        accelerate(TinyPipeline(FLUX), ExactReuse(), ExactReuse())
    with pytest.raises(ConfigError, match="gigabytes"):
        ExactReuse(gigabytes=-1)


@pytest.mark.slow
def test_what_the_page_says_of_flux3_is_counted(root: Path) -> None:
    with torch.device("meta"):
        model = diffusers.Flux3Transformer2DModel()
    config, tokens, text = model.config, 4096, 512

    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(*shape, device="meta")

    said = []
    for references in (0, 1, 2):
        inputs = {
            "hidden_states": empty(1, tokens, config.in_channels),
            "encoder_hidden_states": empty(1, text, config.joint_attention_dim),
            "timestep": empty(1),
            "img_ids": empty(tokens, 4),
            "txt_ids": empty(text, 4),
        }
        if references:
            inputs["image_cond_hidden_states"] = empty(1, references * tokens, config.cond_in_channels)
            inputs["image_cond_ids"] = empty(references * tokens, 4)
        whole = record_call(model, inputs)
        constant = whole.within(*modules_at(model, find_family(model).constant))
        every, some = pieces_of(model, whole, tokens), pieces_of(model, constant, tokens)
        share = sum(piece.flops for piece in some) / sum(piece.flops for piece in every)
        said.append(f"{100 * share:.1f} %")
    page = (root / "docs" / "exact_reuse.md").read_text(encoding="utf-8")
    numbers = re.findall(r"[\d.]+ %", page[page.index("FLUX.3 at its default size") :])
    assert numbers[:3] == said
