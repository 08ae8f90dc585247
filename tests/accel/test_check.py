"""The check of families: every class passes it, and every fault that a family's data can have is caught by it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import diffusers
import pytest
import torch
from tiny import BlockCounter, TinyPipeline
from tiny_models import SPECIMENS
from torch import nn

from outpace.accel import (
    FAMILIES,
    Family,
    IntervalTaylor,
    Stack,
    accelerate,
    check_family,
    find_family,
    register_family,
)
from outpace.accel.check import check_specimen
from outpace.accel.families import IMAGE_THEN_TEXT

SECONDS_EACH = ("AnyFlowFARTransformer3DModel", "Kandinsky6SRTransformer3DModel", "WanAnimate2Transformer3DModel")
"""Their attention goes through FlexAttention, which takes seconds where it is not compiled."""


@pytest.mark.parametrize(
    "cls", [pytest.param(cls, marks=pytest.mark.slow) if cls in SECONDS_EACH else cls for cls in SPECIMENS]
)
def test_every_class_passes_the_check(cls: str) -> None:
    findings = check_specimen(SPECIMENS[cls])
    assert len(findings) == 8
    assert [found.line() for found in findings if found.passed is False] == []
    assert [found.passed for found in findings].count(None) <= (1 if SPECIMENS[cls].apart else 3)
    if find_family(SPECIMENS[cls].build()).constant:
        assert findings[-2].passed is True


@pytest.fixture
def planted() -> Iterator[Any]:
    """Registers a class of its own with the data of another's family, changed; takes it back afterwards."""
    names: list[str] = []

    def plant(cls: str, stack: int = 0, *, family: dict[str, Any] | None = None, **wrong: Any) -> list[str]:
        specimen = SPECIMENS[cls]
        model = specimen.build(**wrong.pop("settings", {}))
        right = find_family(model)
        stacks = list(right.stacks)
        stacks[stack] = replace(stacks[stack], **wrong)
        name = f"Wrong{cls}"
        kept = {f.name: getattr(right, f.name) for f in fields(Family)}
        kept |= {"name": name, "transformers": (name,), "stacks": tuple(stacks), **(family or {})}
        register_family(Family(**kept))
        names.append(name)
        model.__class__ = type(name, (type(model),), {})
        findings = check_family(model, lambda seeds: specimen.inputs(seeds, model), rounding=specimen.rounding)
        return [found.line() for found in findings if found.passed is False]

    yield plant
    for name in names:
        FAMILIES.remove(name)


def test_right_data_under_another_name_passes(planted: Any) -> None:
    assert planted("FluxTransformer2DModel") == []


@pytest.mark.parametrize(
    ("cls", "wrong", "says"),
    [
        ("LTX2VideoTransformer3DModel", {"also": {}}, "the same inputs again, all forecast"),
        ("Kandinsky6Transformer3DModel", {"also": {}}, "the same inputs again, all forecast"),
        ("FluxTransformer2DModel", {"returns": IMAGE_THEN_TEXT}, "the same inputs again"),
        ("FluxTransformer2DModel", {"shared": ()}, "'image_rotary_emb' of 'transformer_blocks' is the same for all"),
        ("VDTTransformer3DModel", {"shared": ()}, "'positions' of 'transformer_blocks' is the same for all"),
        ("HiDreamImageTransformer2DModel", {"shared": ("image_rotary_emb",)}, "is named in shared and has one row"),
        ("ErnieImageTransformer2DModel", {"axes": {}}, "'x' of 'layers' is the same for all"),
        ("ErnieImageTransformer2DModel", {"axes": {"x": 1}}, "'temb' of 'layers' is the same for all"),
        ("ErnieImageTransformer2DModel", {"axes": {}}, "the same inputs again, some samples"),
        ("LatteTransformer3DModel", {"folded": False}, "has 4 rows for 2 samples and 6 for 3: see folded"),
        ("QwenImage21Transformer2DModel", {"trailing": ()}, "has one row more than samples: name it in trailing"),
        ("WanVACETransformer3DModel", {"unless": None, "settings": {"vace_layers": [0, 3]}}, "the same inputs again"),
        ("MiniMaxH3Transformer3DModel", {"shared": ("rotary_emb", "temb")}, "'adaln_indices'"),
    ],
)
def test_wrong_data_is_caught(planted: Any, cls: str, wrong: dict[str, Any], says: str) -> None:
    found = planted(cls, **wrong)
    assert any(says in line for line in found), found


@pytest.mark.parametrize(
    ("cls", "wrong", "says"),
    [
        ("ZImageTransformer2DModel", {"latents": "hidden_states"}, "latents = 'hidden_states' is not given"),
        ("HiDreamImageTransformer2DModel", {"time": "timestep"}, "time = 'timestep' is not given"),
        ("FluxTransformer2DModel", {"latents": "img_ids"}, "'img_ids' has 16 rows for 2 samples and 16 for 3"),
        (
            "GlmImageTransformer2DModel",
            {"constant": ("prior_token_embedding",)},
            "writes to what prior_token_embedding",
        ),
    ],
)
def test_wrong_names_of_arguments_and_modules_are_caught(
    planted: Any, cls: str, wrong: dict[str, Any], says: str
) -> None:
    found = planted(cls, family=wrong)
    assert any(says in line for line in found), found


def test_stacks_in_another_order_than_they_run_are_caught(planted: Any) -> None:
    right = FAMILIES["latte"].stacks
    assert planted("LatteTransformer3DModel", family={"stacks": right[::-1]})


@pytest.mark.slow
def test_a_call_that_only_fills_a_cache_is_no_step_and_always_made() -> None:
    pipe = TinyPipeline("WanAnimate2Transformer3DModel")
    counter = BlockCounter([block for _, block in find_family(pipe.transformer).blocks(pipe.transformer)])
    with accelerate(pipe, IntervalTaylor(interval=2, warmup=1)) as run:
        pipe(steps=6)
    assert len(run.trace.calls) == 6
    computed = run.trace.totals()["computed"]
    assert 0 < computed < 6
    assert counter.counts == [6 + computed] * 4
    counter.remove()


def test_a_hint_behind_the_last_block_is_computed_every_time(planted: Any) -> None:
    assert planted("WanVACETransformer3DModel", settings={"vace_layers": [0, 3]}) == []


class Painter(nn.Module):
    """A transformer of somebody else's: two blocks, positions of its own making, and a sketch beside the picture."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix = nn.Linear(8, 8)

        def forward(self, paint: torch.Tensor, sketch: torch.Tensor, where: torch.Tensor) -> Any:
            both = paint + sketch.mean(1, keepdim=True)
            return paint + self.mix(both + where).tanh(), sketch + self.mix(sketch + paint.mean(1, keepdim=True)).tanh()

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.strokes = nn.ModuleList([self.Block(), self.Block(), self.Block()])

    def forward(self, hidden_states: torch.Tensor, timestep: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        paint = hidden_states + timestep[:, None, None] / 1000
        sketch = paint[:, :2]
        where = torch.linspace(0, 1, paint.shape[1])[:, None].expand(-1, 8)[:1]
        for stroke in self.strokes:
            paint, sketch = stroke(paint, sketch, where)
        return paint, sketch


def painted(seeds: Any) -> tuple[tuple[()], dict[str, Any]]:
    rows = [torch.randn(4, 8, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return (), {"hidden_states": torch.stack(rows), "timestep": torch.full((len(rows),), 500.0)}


@pytest.mark.parametrize(("also", "right"), [({"sketch": "sketch"}, True), ({}, False)])
def test_a_third_party_finds_out_that_a_stream_is_missing(also: dict[str, str], right: bool) -> None:
    stack = Stack(path="strokes", hidden="paint", returns=("paint", "sketch"), also=also)
    register_family(Family(name="painter", transformers=("Painter",), stacks=(stack,)))
    try:
        findings = check_family(Painter().eval(), painted)
    finally:
        FAMILIES.remove("painter")
    assert all(found.passed is not False for found in findings) is right
    assert findings[1].passed is right  # threshold 0 saw nothing of it
    assert findings[0].passed


def test_every_transformer_of_diffusers_is_covered_or_no_denoiser_of_a_pipeline() -> None:
    no_denoiser = {
        "DreamLiteTransformer2DModel": "lies inside a UNet",
        "DualTransformer2DModel": "lies inside a UNet",
        "MiniMaxMusic3RVQDepthDecoder": "decodes tokens one after the other",
        "PriorTransformer": "makes one embedding",
        "T5FilmDecoder": "of a pipeline that is gone",
        "Transformer2DModel": "lies inside a UNet",
        "TransformerTemporalModel": "lies inside a UNet",
    }
    names = {
        name
        for name in dir(diffusers.models.transformers)
        if isinstance(cls := getattr(diffusers.models.transformers, name), type)
        and issubclass(cls, diffusers.ModelMixin)
    }
    covered = {cls for _, family in FAMILIES.items() for cls in family.transformers}
    assert names - covered - set(no_denoiser) == set()
    assert len(names & covered) >= 69
