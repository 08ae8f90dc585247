"""Segmentation: exits are chosen, priced and learnt, scenes are what they say, bad input ends in one clear error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from outpace.errors import ConfigError
from outpace.models.checks.eco_m2f import SMALL
from outpace.models.eco_m2f import (
    EcoM2fConfig,
    ExitData,
    add_exits,
    build_eco,
    encoder_of,
    exit_data,
    exit_loss,
    fit_gate,
    semantic_map,
)
from outpace.models.p2at import P2atConfig, hard_pixel_loss
from outpace.models.s2aformer import S2AFormer, S2AFormerConfig
from outpace.models.trials.scenes import CLASSES, mean_overlap, scenes

torch.set_num_threads(1)
BAD: dict[str, tuple[Callable[[], object], str]] = {
    "s2aformer": (lambda: S2AFormerConfig(widths=(28, 56, 112)), "four stages"),
    "s2aformer heads": (lambda: S2AFormerConfig(heads=(3, 2, 4, 8)), "channels of stage 1 over heads: 28"),
    "s2aformer reduction": (lambda: S2AFormerConfig(reductions=(8, 4, 2, 2)), "smallest grid of stage 4"),
    "s2aformer picture": (
        lambda: S2AFormer(S2AFormerConfig(widths=(4, 8, 16, 32), depths=(1, 1, 1, 1)))(torch.zeros(1, 3, 32, 48)),
        "multiples of 32, not 32 x 48",
    ),
    "p2at": (lambda: P2atConfig(depths=(2, 2)), "four stages with a depth each"),
    "p2at sizes": (lambda: P2atConfig(heads=0), "at least 1"),
    "p2at loss": (lambda: hard_pixel_loss(torch.zeros(1, 2, 3, 3), torch.zeros(1, 3, 3).long(), sure=0.0), "0.0 and"),
    "eco_m2f width": (lambda: EcoM2fConfig(width=32), "32 groups of at least two"),
    "eco_m2f exits": (lambda: EcoM2fConfig(first_exit=7), "behind layers 1 to 6, not 7"),
    "eco_m2f swin": (lambda: EcoM2fConfig(swin_depths=(2, 2)), "four depths and four heads"),
    "scenes": (lambda: scenes(1, 8, torch.Generator()), "16 pixels a side"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_is_refused(name: str) -> None:
    make, words = BAD[name]
    with pytest.raises(ConfigError, match=words):
        make()


def test_exits_that_a_model_does_not_have_are_refused() -> None:
    torch.manual_seed(0)
    model = build_eco(replace(SMALL, encoder_layers=2))
    with pytest.raises(ConfigError, match="exits already"):
        add_exits(model)
    with pytest.raises(ConfigError, match="exits are 2 to 2, not 3"):
        exit_loss(model, 3, pixel_values=torch.zeros(1, 3, 64, 64))
    data = ExitData(seen_PW=torch.zeros(3, 64), quality_PE=torch.zeros(3, 4))
    with pytest.raises(ConfigError, match="4 exits and"):
        fit_gate(encoder_of(model), data, price=0.0)
    with pytest.raises(ConfigError, match="price of at least 0"):
        fit_gate(encoder_of(model), replace(data, quality_PE=torch.zeros(3, 1)), price=-1.0)


def test_a_gate_learns_which_exit_is_worth_its_price() -> None:
    torch.manual_seed(0)
    model = build_eco(SMALL)
    generator = torch.Generator().manual_seed(0)
    bright = torch.tensor([0.1, 1.0, 0.1, 1.0])
    batches = [(torch.rand(4, 3, 64, 64, generator=generator) * bright[:, None, None, None], None) for _ in range(2)]
    data = exit_data(model, batches, lambda output, _: [0.5] * len(output.masks_queries_logits))
    assert data.seen_PW.shape == (8, 64) and torch.equal(data.quality_PE, torch.full((8, 3), 0.5))
    assert encoder_of(model).exit == encoder_of(model).last, "asking changes nothing"
    assert data.best(0.1).tolist() == [0] * 8, "equal quality: the cheapest"
    # bright pictures gain from more layers, dark ones do not
    data = replace(data, quality_PE=0.5 + torch.tensor([0.0, 0.1, 0.2]) * (bright > 0.5).repeat(2)[:, None])
    for price, late in ((0.05, 2), (0.3, 0)):
        fit_gate(encoder_of(model), data, price=price, steps=300, rate=0.1)
        for pictures, _ in batches:
            out = model(pixel_values=pictures)
            assert (encoder_of(model).taken_B - encoder_of(model).first).tolist() == [0, late, 0, late]
            assert semantic_map(out, (64, 64)).shape == (4, 64, 64)


def test_every_pixel_of_a_scene_has_one_owner_that_can_be_seen() -> None:
    found = scenes(12, 32, torch.Generator().manual_seed(3))
    for scene in found:
        assert torch.equal(scene.masks.sum(0), torch.ones(32, 32)) and bool(scene.masks.flatten(1).any(1).all())
        assert scene.kinds[0] == 0 and int(scene.kinds[1:].min()) > 0 and len(scene.kinds) <= 6
        assert scene.classes.shape == (32, 32) and 0 <= float(scene.picture.min()) <= float(scene.picture.max()) <= 1
    assert set(torch.cat([scene.kinds for scene in found]).tolist()) == set(range(len(CLASSES)))
    again = scenes(12, 32, torch.Generator().manual_seed(3))
    assert all(torch.equal(a.picture, b.picture) for a, b in zip(found, again, strict=True))


def test_overlap_is_intersection_over_union_of_classes_that_occur() -> None:
    true = torch.tensor([[0, 0, 1, 1]])
    assert mean_overlap(true, true, 4) == 1.0
    assert mean_overlap(torch.tensor([[0, 1, 1, 1]]), true, 4) == pytest.approx((1 / 2 + 2 / 3) / 2)
