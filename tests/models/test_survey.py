"""The cost model: DiT and FLUX.1 as diffusers builds and runs them, techniques on every architecture, bad input."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import diffusers
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from outpace.errors import ConfigError, UnknownNameError
from outpace.models.survey import ARCHITECTURES, AXES, MACHINES, TECHNIQUES, Table, Technique, cost, least_seconds
from outpace.models.survey.architectures import dit, flux
from outpace.models.survey.cost import Matrix
from outpace.models.survey.techniques import matrices

EVERY_STREAM = {"tokens": 4096, "patches": 4095, "image": 4096, "text": 512}


def counted(model: Any, **inputs: Any) -> tuple[int, int]:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(**inputs)
    return sum(parameter.numel() for parameter in model.parameters()), counter.get_total_flops()


def test_flux_is_as_diffusers_builds_and_runs_it() -> None:
    with torch.device("meta"):
        model = diffusers.FluxTransformer2DModel(
            in_channels=8, num_layers=2, num_single_layers=3, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=24, pooled_projection_dim=20, guidance_embeds=True, axes_dims_rope=(4, 6, 6),
        )  # fmt: skip
        parameters, flops = counted(
            model, hidden_states=torch.zeros(1, 10, 8), encoder_hidden_states=torch.zeros(1, 6, 24),
            pooled_projections=torch.zeros(1, 20), timestep=torch.zeros(1), guidance=torch.zeros(1),
            img_ids=torch.zeros(10, 3), txt_ids=torch.zeros(6, 3),
        )  # fmt: skip
    parts = flux(heads=2, head_width=16, double=2, single=3, channels=8, text_width=24, pooled_width=20)
    ours = cost(parts, {"image": 10, "text": 6})
    assert (ours.parameters, ours.flops) == (parameters, flops)


def test_dit_is_as_diffusers_builds_and_runs_it() -> None:
    with torch.device("meta"):
        model = diffusers.DiTTransformer2DModel(
            num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=8, num_layers=3, sample_size=8,
            patch_size=2, num_embeds_ada_norm=10,
        )  # fmt: skip
        parameters, flops = counted(
            model, hidden_states=torch.zeros(2, 4, 8, 8), timestep=torch.zeros(2), class_labels=torch.zeros(2).long()
        )
    kept, run = (  # the last layer asks the first one's copy once more
        cost(dit(width=32, layers=3, heads=2, positions=0, classes=11, embedders=copies), 16, batch=2)
        for copies in (3, 4)
    )
    assert (kept.parameters, run.flops) == (parameters, flops)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_technique_takes_every_architecture_and_saves_something(name: str) -> None:
    parts = ARCHITECTURES[name]()
    before = cost(parts, EVERY_STREAM)
    saved: set[str] = set()
    for technique_name, technique in TECHNIQUES.items():
        after = cost(technique.change(parts), EVERY_STREAM)
        less = {field for field in type(after).__slots__ if getattr(after, field) < getattr(before, field)}
        assert less or technique_name in {"experts", "window", "int8-cache", "grouped-keys"}
        saved |= less
    assert saved >= {"parameters", "flops", "weight_bytes", "moved_bytes"}


def test_what_techniques_save_of_llama() -> None:
    parts = ARCHITECTURES["llama-2-7b"]()
    before = cost(parts, 1, cached=4095)
    after = {name: cost(technique.change(parts), 1, cached=4095) for name, technique in TECHNIQUES.items()}
    assert after["int4"].parameters == before.parameters and after["int4"].flops == before.flops
    assert after["int8-cache"].cache_bytes == before.cache_bytes / 2
    assert after["window"].cache_bytes == before.cache_bytes / 4
    assert after["grouped-keys"].cache_bytes == before.cache_bytes / 8
    assert after["distilled-to-half"].cache_bytes == before.cache_bytes / 2
    assert after["shared-layers"].parameters < before.parameters / 10
    assert after["shared-layers"].flops == before.flops
    assert after["experts"].parameters > 5 * before.parameters > 5 * after["pruned-2:4"].parameters


def test_cards_of_techniques_are_whole() -> None:
    assert {technique.axis for _, technique in TECHNIQUES.items()} >= set(AXES) - {"architecture search", "hardware"}
    for _, technique in TECHNIQUES.items():
        assert technique.summary and "arXiv:" in technique.source
        if technique.where:
            __import__(technique.where)


def test_experts_that_nobody_chose_are_not_read() -> None:
    parts = ARCHITECTURES["mixtral-8x7b"]()
    one, many = cost(parts, 1), cost(parts, 4096)
    assert one.moved_bytes - one.cache_bytes < 0.3 * one.weight_bytes
    assert many.moved_bytes - many.cache_bytes > 0.99 * many.weight_bytes


def test_what_is_changed_is_every_matrix_of_a_layer_by_name_and_no_other() -> None:
    parts = tuple(Matrix(name=name, inputs=4, outputs=4, layers=n) for name, n in (("q", 2), ("up", 3), ("head", 1)))
    parts += (Table(name="norms", numbers=3, layers=3),)
    assert matrices(parts, bits=4) == (replace(parts[0], bits=4), replace(parts[1], bits=4), *parts[2:])
    assert matrices(parts, ("up", "head"), bits=4) == (parts[0], replace(parts[1], bits=4), *parts[2:])


@pytest.mark.parametrize("how", [{"batch": 0}, {"cached": -1}, {"tokens": -1}])
def test_fewer_than_nothing_costs_nothing(how: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="at least one sequence"):
        cost(ARCHITECTURES["llama-2-7b"](), **{"tokens": 5, **how})
    cost(ARCHITECTURES["llama-2-7b"](), 0, cached=0, batch=1)


def test_bad_input_ends_in_one_clear_error() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'llama-2-7b'"):
        ARCHITECTURES["llama-27b"]
    with pytest.raises(ConfigError, match="streams image, once, text; say how long image, text is"):
        cost(flux(), 5)
    with pytest.raises(ConfigError, match="at least one sequence"):
        cost(dit(), 5, batch=0)
    with pytest.raises(ConfigError, match="a technique's axis is one of distillation"):
        Technique(axis="magic", training="none", change=lambda parts: parts, summary="s", source="arXiv:0")
    nothing = cost((Table(name="norms", numbers=3),), 1)
    assert nothing.parameters == 3 and least_seconds(nothing, MACHINES["H100 SXM"])[1] == "memory"
