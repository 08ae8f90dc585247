"""What a conversion saves, against the figures of the paper and against counting by hand."""

from __future__ import annotations

import functools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from dense_models import build, middle

from outpace.accel.estimate import estimate, flops
from outpace.accel.estimate.account import Account
from outpace.accel.experts import BlockGroup, Conversion, Count, Experts, Modulation, active_parameters, convert, count
from outpace.accel.experts.settings import Conversion as Settings
from outpace.errors import UnknownNameError

EXPERTS = Conversion(experts=Experts())


@functools.cache
def flux() -> Count:
    return count("flux.1", EXPERTS)


def test_flux_uses_three_eighths_of_its_feed_forward_and_8_3_billion_parameters() -> None:
    told = flux()
    assert told.layers == 19 + 19 + 38
    assert told.feed_forward == 76 * 75_497_472
    assert told.active_fraction == 0.375
    assert told.routers == 76 * 12 * 3072
    assert told.parameters - told.dense_parameters == told.routers, "nothing else is added"
    assert round((told.active_parameters - told.routers) / 1e9, 3) == 8.315
    # 0.625 of the products of the feed-forward layers are saved: those of 4096 tokens of picture and 512 of text.
    tokens = 19 * 4096 + 19 * 512 + 38 * 4608
    saved = 2 * tokens * 75_497_472 * 5 // 8
    assert told.dense_flops - told.flops == saved - 2 * tokens * 12 * 3072
    assert told.flops / told.dense_flops == pytest.approx(0.667, abs=5e-4)


@pytest.mark.slow
def test_compressed_modulations_bring_flux_to_the_paper_s_figure() -> None:
    told = count("flux.1", Conversion(experts=Experts(), modulation=Modulation(rank=48)))
    assert round(told.modulation / 1e9, 3) == 3.229
    assert round(told.active_parameters / 1e9, 2) == 5.15


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "dense", "active"),
    [
        ("flux.2", 32.223, 18.634),
        ("chroma", 8.900, 5.313),
        ("wan2.1-14b", 14.288, 10.749),
        ("qwen-image", 20.430, 14.767),
    ],
)
def test_other_published_models(model: str, dense: float, active: float) -> None:
    told = count(model, EXPERTS)
    assert told.active_fraction == 0.375
    assert round(told.dense_parameters / 1e9, 3) == dense
    assert round((told.active_parameters - told.routers) / 1e9, 3) == active


def test_a_mixture_of_blocks_saves_whole_blocks() -> None:
    dense, half = (
        flux(),
        count("flux.1", Conversion(experts=Experts(), groups=(BlockGroup(first=20, size=4, active=2),))),
    )
    block = (dense.active_parameters - half.active_parameters + half.routers - dense.routers) / 2
    # attention (4 matrices), norms of queries and keys, modulation, and three eighths of the feed-forward
    matrices = 4 * 3072 * 3072 + 3 * 3072 * 3072 + 75_497_472 * 3 // 8
    assert block == pytest.approx(matrices, rel=1e-3)
    assert half.flops < dense.flops


def test_counting_by_hand_on_a_small_model() -> None:
    dense = build("FluxTransformer2DModel")
    model = convert(dense, Conversion(experts=Experts(layout="1S4E1A"), groups=(middle(dense),)))
    total = sum(p.numel() for p in model.parameters())
    # 7 layers of 16 -> 64 -> 16: an expert has 12 units, each with 16 weights in, 1 bias and 16 weights out.
    idle = 7 * 3 * 12 * 33
    single = sum(p.numel() for p in model.single_transformer_blocks[0].parameters()) - 3 * 12 * 33
    assert active_parameters(model) == total - idle - single


def test_a_converted_folder_is_estimated_and_told_part_by_part(tmp_path: Path) -> None:
    dense = build("FluxTransformer2DModel")
    size: dict[str, Any] = {"height": 64, "width": 64, "text_tokens": 5}
    whole, parts = count(dense, EXPERTS, **size), flops(dense, **size)
    convert(dense, EXPERTS).save_pretrained(tmp_path)
    told = flops(tmp_path, **size)
    assert estimate(tmp_path, device="h100", **size).flops_per_step == whole.flops

    def by_part(account: Account) -> dict[str, int]:
        sums: Counter[str] = Counter()
        for piece in account.pieces:
            sums[piece.part] += piece.flops
        return dict(sums)

    before, after = by_part(parts), by_part(told)
    assert sum(after.values()) == whole.flops and sum(before.values()) == whole.dense_flops
    assert after["self-attention"] == before["self-attention"] and "rest" not in after


def test_a_count_is_said_in_words_and_in_data() -> None:
    told = flux()
    assert "0.375 of it" in told.summary() and "1024 x 1024" in told.summary()
    assert told.to_dict()["active_fraction"] == 0.375
    with pytest.raises(UnknownNameError, match=r"no published model 'flux\.9'"):
        count("flux.9", EXPERTS)


def test_settings_travel_as_plain_data() -> None:
    whole = Conversion(
        experts=Experts(layout="2S8E1A", scaling="experts"),
        groups=(BlockGroup(first=2, size=3, active=1),),
        text_weight=0.0,
        modulation=Modulation(kind="shared"),
    )
    for settings in (whole, EXPERTS, Conversion(modulation=Modulation(rank=3))):
        assert Settings.from_dict(settings.to_dict()) == settings
