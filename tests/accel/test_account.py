"""FLOPs by part against torch's own counter on real forward passes, published totals, and what a run remembered."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from tiny_models import TINY_MODELS
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import outpace
from outpace.accel import accelerate
from outpace.accel.check import Told
from outpace.accel.estimate import MODELS, SIGNATURES, Account, estimate, flops
from outpace.accel.estimate.counted import counted
from outpace.accel.estimate.counting import ceilings
from outpace.accel.estimate.parts import FUSED, OUTSIDE, REST, SELF
from outpace.accel.estimate.recording import recording_calls
from outpace.accel.estimate.source import build_on_meta, settings_of
from outpace.accel.families import find_family
from outpace.accel.forecast.history import History
from outpace.errors import ConfigError, InputError, UnknownNameError


def real_inputs(name: str, transformer: Any, side: int = 8, text: int = 5) -> dict[str, Any]:
    """The arguments that are counted, with values."""
    from outpace.accel.estimate.signature import Latent

    signature, config = SIGNATURES[name], settings_of(transformer)
    latent = Latent(
        frames=2 if signature.video else 1,
        height=side,
        width=side,
        text=text if signature.text else 0,
        patch=signature.patch(config),
    )
    torch.manual_seed(0)
    made = signature.inputs(config, latent)
    return {key: torch.zeros_like(value) if isinstance(value, torch.Tensor) else value for key, value in made.items()}


@pytest.mark.parametrize(
    "name",
    [
        "DiTTransformer2DModel",
        "FluxTransformer2DModel",
        "Flux2Transformer2DModel",
        "QwenImageTransformer2DModel",
        "SD3Transformer2DModel",
        "WanTransformer3DModel",
    ],
)
def test_every_part_of_a_real_forward_pass_is_counted_to_the_last_flop(name: str) -> None:
    real = TINY_MODELS[name].build()
    frames = 5 if SIGNATURES[name].video else None
    told = flops(build_on_meta(name, settings_of(real)), height=64, width=64, text_tokens=5, frames=frames)
    inputs = real_inputs(name, real)
    # torch has no formula for the fused attention of CPUs; written out it is two products.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        real(**inputs, return_dict=False)
    assert counter.get_total_flops() == told.flops_per_call == sum(piece.flops for piece in told.pieces)
    by_module = counter.get_flop_counts()
    for stack in find_family(real).stacks:
        counted = sum(
            sum(by_module[f"{type(real).__name__}.{stack.path}.{i}"].values())
            for i in range(len(getattr(real, stack.path)))
        )
        assert counted == sum(piece.flops for piece in told.pieces if piece.stack == stack.path) > 0
    assert told.forecast_flops == flops_of_a_forecast(inputs, real)
    first = find_family(real).stacks[0].path
    assert told.first_block_flops == sum(by_module[f"{type(real).__name__}.{first}.0"].values())
    # The same of calls as they are made, with whatever attention this machine has; what runs beside them is left out.
    with torch.no_grad():
        plain = real(**inputs, return_dict=False)[0]
        with recording_calls([real]) as recordings:
            beside = torch.ones(1, 1, 4, 4) @ torch.ones(1, 1, 4, 4)
            functional.scaled_dot_product_attention(beside, beside, beside)
            seen = [real(**inputs, return_dict=False)[0] for _ in range(2)]
    assert recordings[0].flops == 2 * told.flops_per_call
    assert all(torch.allclose(one, plain, atol=1e-5) for one in seen)


@pytest.mark.parametrize("name", SIGNATURES)
def test_every_number_of_the_state_has_its_part(name: str) -> None:
    real = TINY_MODELS[name].build()
    frames = 5 if SIGNATURES[name].video else None
    told = flops(build_on_meta(name, settings_of(real)), height=64, width=64, text_tokens=5, frames=frames)
    saved_tables = sum(v.numel() for k, v in real.state_dict().items() if k not in dict(real.named_parameters()))
    assert sum(piece.parameters for piece in told.pieces) == told.parameters
    assert told.parameters == saved_tables + sum(weight.numel() for weight in real.parameters())
    assert {piece.part for piece in told.pieces}.isdisjoint({REST})
    assert told.forecast_flops < sum(piece.flops for piece in told.pieces if piece.stack == OUTSIDE)
    assert 0 < told.first_block_flops < told.flops_per_call - told.forecast_flops
    assert any(piece.part == SELF and piece.flops for piece in told.pieces)


@torch.no_grad()
def flops_of_a_forecast(inputs: dict[str, Any], real: Any) -> int:
    """What torch counts in a call of a tiny model in which every block is forecast."""
    counted = []
    with accelerate(real, Told()) as run, sdpa_kernel(SDPBackend.MATH):
        for timestep in (900, 800):
            moved = {**inputs, "timestep": torch.full_like(inputs["timestep"], timestep)}
            with FlopCounterMode(display=False) as counter:
                real(**moved, return_dict=False)
            counted.append(counter.get_total_flops())
    assert [call.blocks > 0 for call in run.trace.calls] == [True, False]
    return counted[-1]


def slow_but(name: str, *quick: str) -> Any:
    """A model to count: among the slow claims, unless it is one of `quick`; each takes a second or two."""
    return name if name in quick else pytest.param(name, marks=pytest.mark.slow)


PUBLISHED = {
    # billions of parameters, tera- multiply-adds of one call, where they are published
    "dit-xl-2": (0.675, 0.1186),  # Peebles and Xie 2022, arXiv:2212.09748, table 4: 675 M, 118.64 Gflops at 256 px
    "flux.1": (11.9, None),  # huggingface.co/black-forest-labs/FLUX.1-dev: 12 billion; 11.90 in its weights' index
    "wan2.1-14b": (14.3, None),  # Wan 2025, arXiv:2503.20314: 14 B; 14.29 in the index of Wan2.1-T2V-14B-Diffusers
    "wan2.1-1.3b": (1.42, None),  # the same; 1.42 in the weights of Wan2.1-T2V-1.3B-Diffusers
    "hunyuanvideo": (12.8, None),  # Kong et al. 2024, arXiv:2412.03603: 13 B
    "qwen-image": (20.4, None),  # Wu et al. 2025, arXiv:2508.02324: 20 B
    "sd3.5-large": (8.1, None),  # Stability AI 2024, huggingface.co/stabilityai/stable-diffusion-3.5-large: 8.1 B
}


@pytest.mark.parametrize("name", [slow_but(name, "dit-xl-2", "flux.1", "wan2.1-1.3b") for name in PUBLISHED])
def test_totals_are_the_published_ones(name: str) -> None:
    told = flops(name)
    billions, tera = PUBLISHED[name]
    held = told.parameters
    if name == "dit-xl-2":  # diffusers keeps the embedders of time and class in every block, the paper once
        built: Any = build_on_meta("DiTTransformer2DModel", dict(MODELS[name].config))
        block = built.transformer_blocks[0]
        held -= (told.blocks - 1) * sum(weight.numel() for weight in block.norm1.emb.parameters())
    assert held / 1e9 == pytest.approx(billions, rel=0.01)
    if tera is not None:
        assert told.flops_per_call / 2e12 == pytest.approx(tera, rel=0.001)


@pytest.mark.parametrize(
    "name", [slow_but(name, "flux.1") for name in ("flux.1", "flux.2", "wan2.2-5b", "sd3.5-medium")]
)
def test_it_agrees_with_the_estimate(name: str) -> None:
    told, other = flops(name), estimate(name, device="h100")
    assert (told.tokens, told.parameters, told.calls, told.steps) == (
        other.tokens,
        other.parameters,
        other.calls,
        other.steps,
    )
    assert told.flops_total == other.flops_total
    own = sum(piece.flops for piece in told.pieces if piece.part == SELF)
    assert told.calls * own == other.attention_flops_per_step
    assert any(piece.part == FUSED for piece in told.pieces) == name.startswith("flux")


def test_ceilings_are_what_still_runs() -> None:
    every, half = ceilings(100, 10, 15, (1.0, 0.5))
    assert (every.planned, every.probed) == (1.0, 1.0)
    assert half.planned == pytest.approx(100 / 55) and half.probed == pytest.approx(100 / 57.5)
    told = flops("z-image")
    for ceiling in told.ceilings:
        assert 1.0 <= ceiling.probed <= ceiling.planned <= 1.0 / ceiling.computed
    assert told.ceilings[-1].planned < told.flops_per_call / told.forecast_flops


@pytest.mark.parametrize(("order", "gate_order", "holds"), [(None, None, 3), (0, None, 1), (1, 3, 4), (3, 0, 4)])
def test_a_history_never_holds_more_than_its_capacity(order: int | None, gate_order: int | None, holds: int) -> None:
    history = History(order, 2, gate_order=gate_order)
    for step in range(8):
        history.push(1.0 - 0.1 * step, step, None, torch.randn(4, 3))
    assert len(history.anchors) == history.capacity == holds


@pytest.mark.parametrize(("pocket", "gate"), [("dit", "plan"), ("dit", "budget"), ("wan", "plan"), ("wan", "budget")])
def test_memory_is_what_a_run_remembered(pocket: str, gate: str) -> None:
    from outpace.pipelines.pocket.recipes import POCKETS

    pipe = outpace.load_pocket(pocket)
    pipe.set_progress_bar_config(disable=True)
    call = {**POCKETS[pocket].call, "num_inference_steps": 12}
    asked = {"class_labels": [3]} if pocket == "dit" else {"prompt": "a red circle moves left slowly"}
    held: list[tuple[int, int]] = []
    method = outpace.GatedTaylor(gate=gate, max_order=2, threshold=5.0)
    with outpace.accelerate(pipe, method) as run:
        forecaster: Any = run._conductor.parts[0]
        whole_step = forecaster.around_step

        def watched(*args: Any, **kwargs: Any) -> Any:
            anchors = [a for b in forecaster._branches.values() for row in b.rows for a in row.anchors]
            kept = [t for a in anchors for t in (a.first, a.last) if t is not None]
            held.append((len(kept), sum(t.numel() * t.element_size() for t in kept)))
            return whole_step(*args, **kwargs)

        forecaster.around_step = watched
        pipe(**asked, **call)
    sizes = {"height": call.get("height"), "width": call.get("width"), "frames": call.get("num_frames")}
    told = flops(pipe, **{k: v for k, v in sizes.items() if v is not None}, dtype="float32")
    setting = "GatedTaylor(max_order=2)" if gate == "plan" else 'GatedTaylor(gate="budget")'
    said = next((kept.tensors, kept.bytes) for kept in told.kept if kept.setting == setting)
    assert max(held) == said


@pytest.mark.parametrize("name", list(SIGNATURES))
def test_guidance_in_one_call_is_told_as_the_pipelines_of_diffusers_make_it(name: str) -> None:
    """The pipelines that do so double their latents; those that do not say in which call they are."""
    root = Path(diffusers.__file__).parent / "pipelines"
    sources = [path.read_text(encoding="utf-8") for path in sorted(root.rglob("pipeline_*.py"))]
    mine = [text for text in sources if re.search(rf"\b{name}\b", text) and "controlnet" not in text.lower()]
    doubled = [bool(re.search(r"torch\.cat\(\[lat\w+\] \* 2|\.repeat\(2, 1, 1, 1\)", text)) for text in mine]
    assert (SIGNATURES[name].together, mine != []) == (any(doubled), True)


@pytest.mark.parametrize("name", ["wan2.2-a14b", "wan2.1-14b", "hunyuanvideo", "flux.1"])
def test_what_was_counted_beforehand_is_remembered_by_one_denoiser_at_a_time(name: str) -> None:
    """Of two experts one: what both would hold, as they did once, is twice as much."""
    known = counted(name)
    each = {1: 2, 2: 3, 3: 4}
    for kept in known.kept[:3]:
        anchors = each[int(kept.setting.split("=")[1][0])]
        assert kept.tensors == known.calls * anchors, kept
    if name == "wan2.2-a14b":
        clip = 75_600 * 5120 * 2  # tokens of 720p, width, bytes
        assert known.kept[1].bytes == 2 * 3 * clip <= 0.6 * 2 * 2 * 3 * clip


def test_words_numbers_and_slips() -> None:
    assert outpace.flops is flops
    told = flops("flux.1", steps=10)
    assert isinstance(told, Account) and json.loads(json.dumps(told.to_dict()))["steps"] == 10
    text = told.summary()
    for said in ("11.9 billion", "single_transformer_blocks", "1/3 of them computed", 'GatedTaylor(gate="budget")'):
        assert said in text
    assert max(map(len, text.splitlines())) <= 110
    assert flops("flux.1", guidance=True).flops_per_step == 2 * told.flops_per_step
    with pytest.raises(ConfigError, match="dtype"):
        flops("flux.1", dtype="int4")
    with pytest.raises(ConfigError, match="steps"):
        flops("flux.1", steps=0)
    with pytest.raises(UnknownNameError, match="did you mean 'flux"):
        flops("flux.0")
    with pytest.raises(InputError, match="makes pictures"):
        flops("flux.1", frames=5)
