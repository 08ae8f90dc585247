"""Vision models refuse what they cannot do, each with one clear error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from outpace.errors import ConfigError, OutpaceError
from outpace.models import create
from outpace.models.activator import ActivatorConfig
from outpace.models.craft import Craft, CraftConfig
from outpace.models.crate import CrateConfig
from outpace.models.dlgsanet import DlgsanetConfig
from outpace.models.hornet import HorNetConfig
from outpace.models.layers.pictures import into_patches
from outpace.models.maxim import Maxim, MaximConfig
from outpace.models.moat import MoatConfig
from outpace.models.ninformer import NinformerConfig
from outpace.models.predformer import PredFormer, PredFormerConfig
from outpace.models.swin import KERNEL, SwinSettings, _attention
from outpace.models.vig import Vig, VigConfig

torch.set_num_threads(1)
BAD: dict[str, tuple[Callable[[], object], str]] = {
    "hornet": (lambda: HorNetConfig(orders=(2, 3)), "a depth and an order for each stage"),
    "hornet filtered halves": (
        lambda: HorNetConfig(width=8, depths=(1, 1, 1), orders=(1, 3, 6), global_filters=True),
        "channels of stage 3",
    ),
    "hornet halves": (lambda: HorNetConfig(width=20, orders=(4, 3, 4, 5)), "channels of stage 1"),
    "moat": (lambda: MoatConfig(attention=(4,)), "stages with attention"),
    "moat windows": (lambda: MoatConfig(window=(14,)), "a window for each of the 2 stages"),
    "swin": (lambda: SwinSettings(heads=(3, 6)), "a depth and heads for each stage"),
    "vig": (lambda: VigConfig(depths=(2, 2)), "a width, a depth and heads"),
    "ninformer": (lambda: NinformerConfig(patch=5), "pixels of a side over patches"),
    "activator": (lambda: ActivatorConfig(dropout=1.0), r"dropout of an Activator must be in \[0, 1\)"),
    "crate": (lambda: CrateConfig(step=0.0), "a step above 0"),
    "predformer": (lambda: PredFormerConfig(layout="quad-tstt"), "did you mean 'quad-tsst'"),
    "predformer blocks": (lambda: PredFormerConfig(blocks=10), "10 cannot be split into 4"),
    "dlgsanet": (lambda: DlgsanetConfig(normaliser="softmx"), "did you mean 'softmax'"),
    "craft": (lambda: CraftConfig(heads=3), "heads over orientations"),
    "craft windows": (lambda: CraftConfig(window=(4,)), "rows and columns"),  # pyright: ignore[reportArgumentType]
    "predformer pictures": (lambda: PredFormerConfig(picture=(8,)), "rows and columns"),  # pyright: ignore[reportArgumentType]
    "maxim": (lambda: MaximConfig(scales=4), "from 1 to 3 scales"),
}


@pytest.mark.parametrize("name", BAD)
def test_configurations_that_cannot_be_are_refused(name: str) -> None:
    make, words = BAD[name]
    with pytest.raises(OutpaceError, match=words):
        make()


def test_windows_drop_no_weights_in_training() -> None:
    model: Any = create("swin", "toy")
    assert model.config._attn_implementation == KERNEL  # transformers' own gives the same, and is not what is said
    x, layer = torch.zeros(1, 3, 32, 32), model.swin.encoder.layers[0].blocks[0].attention
    model.train()(x)
    layer.attention_dropout = 0.1
    model.eval()(x)
    q = torch.ones(1, 1, 4, 2)
    assert _attention(layer, q, q, q, None, dropout=0.1)[0].shape == (1, 4, 1, 2)  # as some models tell it in eval, too
    with pytest.raises(ConfigError, match="drops no weights"):
        model.train()(x)


def test_pictures_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="multiples of 64"):
        Maxim(MaximConfig(features=4, stages=1))(torch.zeros(1, 3, 64, 65))
    with pytest.raises(ConfigError, match="build it with picture=48"):
        Vig(VigConfig(widths=(8,), depths=(1,), heads=(1,), picture=32))(torch.zeros(1, 3, 48, 48))
    with pytest.raises(ConfigError, match="takes"):
        PredFormer(PredFormerConfig(blocks=4, width=16, heads=2))(torch.zeros(1, 9, 1, 64, 64))
    with pytest.raises(ConfigError, match="more than 8 pixels"):
        Craft(CraftConfig(width=16, heads=2, groups=1, blocks=1))(torch.zeros(1, 3, 7, 16))
    with pytest.raises(ConfigError, match="do not fill"):
        into_patches(torch.zeros(1, 3, 8, 9), 4)
