"""Settings that take away each difference from published weights; the defaults stay what the shipped pockets have."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from outpace.errors import ConfigError, UnknownNameError
from outpace.pipelines.dit3d import DiT3DTransformerModel
from outpace.pipelines.ladine import LadineDenoiser, LadineEncoder, LadineMapping
from outpace.pipelines.lego import LegoTransformer2DModel
from outpace.pipelines.vdt import VDTTransformer3DModel

torch.set_num_threads(1)
SMALL: dict[str, Any] = {"num_attention_heads": 2, "attention_head_dim": 8}
MODELS: dict[str, Any] = {
    "vdt": lambda **more: VDTTransformer3DModel(**SMALL, num_layers=2, sample_size=8, in_channels=3, **more),
    "dit3d": lambda **more: DiT3DTransformerModel(**SMALL, num_layers=2, voxel_size=8, **more),
    "lego": lambda **more: LegoTransformer2DModel(
        **SMALL, sample_size=8, brick_sizes=(4, 8), patch_sizes=(2, 2), num_layers=(1, 1), **more
    ),
}


def times_told(model: nn.Module) -> torch.Tensor:
    part: Any = next(part for part in model.modules() if type(part).__name__ == "Timesteps")
    return part(torch.tensor([1.0, 37.5]))


@pytest.mark.parametrize("name", MODELS)
def test_times_are_told_as_published_where_asked(name: str) -> None:
    half = 128
    for shift, of in ((0.0, half), (1.0, half - 1)):
        rates = torch.exp(-math.log(10_000) * torch.arange(half) / of)
        angles = torch.tensor([[1.0], [37.5]]) * rates
        model = MODELS[name](freq_shift=shift)
        torch.testing.assert_close(times_told(model), torch.cat([angles.cos(), angles.sin()], -1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(times_told(MODELS[name]()), times_told(MODELS[name](freq_shift=1.0)))


@pytest.mark.parametrize("name", ["vdt", "dit3d"])
def test_norms_and_gelu_are_settings(name: str) -> None:
    model = MODELS[name](norm_eps=1e-6, activation_fn="gelu")
    for block in model.transformer_blocks:
        assert block.norm3.eps == 1e-6
        assert block.ff.net[0].approximate == "none"


@torch.no_grad()
def test_coordinates_of_lego_may_count_down_first() -> None:
    torch.manual_seed(0)
    across = MODELS["lego"]().eval()
    down = MODELS["lego"](down_first=True).eval()
    weights = across.state_dict()
    for name, value in weights.items():
        if name.endswith("patches.weight"):  # the two last channels are the coordinates
            weights[name] = torch.cat([value[:, :-2], value[:, -2:].flip(1)], 1)
    down.load_state_dict(weights)
    x, time = torch.randn(2, 3, 8, 8), torch.tensor(0.3)
    torch.testing.assert_close(down(x, time).sample, across(x, time).sample)
    down.load_state_dict(across.state_dict())
    assert float((down(x, time).sample - across(x, time).sample).abs().max()) > 1e-4


def test_layers_of_ladine_are_settings() -> None:
    def linears(part: nn.Module) -> int:
        return sum(isinstance(layer, nn.Linear) for layer in part.modules())

    released = LadineDenoiser(members=1, picture_layers=3)
    assert [linears(LadineDenoiser(members=1).parts[0].picture), linears(released.parts[0].picture)] == [2, 3]
    kinds = [type(layer).__name__ for layer in released.parts[0].picture]
    assert kinds == ["Flatten", *["Linear", "LayerNorm", "Softplus"] * 2, "Linear", "LayerNorm"]
    assert [linears(LadineMapping(members=1, layers=n)) for n in (3, 4)] == [3, 4]
    assert list(LadineMapping(members=1).state_dict()) == list(LadineMapping(members=1, layers=3).state_dict())
    assert [
        part.out_features for part in LadineMapping(members=1, width=(9, 7)).networks[0] if isinstance(part, nn.Linear)
    ] == [9, 7, 10]
    for make in (
        lambda: LadineDenoiser(picture_layers=0),
        lambda: LadineMapping(layers=1),
        lambda: LadineMapping(width=()),
    ):
        with pytest.raises(ConfigError, match="layers"):
            make()
    with pytest.raises(UnknownNameError, match="did you mean 'batch'"):
        LadineDenoiser(norm="bach")


@torch.no_grad()
def test_what_settings_of_ladine_change() -> None:
    torch.manual_seed(0)
    x = torch.rand(2, 1, 8, 8)
    plain, bare, raw = (
        LadineEncoder(width=16, num_layers=2, **how).eval() for how in ({}, {"bare": True}, {"centred": False})
    )
    for other in (bare, raw):
        other.load_state_dict(plain.state_dict())
    torch.testing.assert_close(bare(x), plain(x))  # its own answer is told places
    assert [tuple(part.shape) for part in bare.tokens(x)] == [(2, 16, 16)] * 2
    torch.testing.assert_close(raw(2 * x - 1), plain(x))
    assert all(block.norm1.eps == 1e-6 for block in LadineEncoder(norm_eps=1e-6).blocks)
    learned = LadineDenoiser(members=1, norm="batch").train()
    code, _ = learned.read(0, torch.rand(16, 1, 8, 8), torch.rand(16, 10))
    assert float(code.mean(0).abs().max()) < 1e-5
    learned.eval()
    together = learned.read(0, x, torch.rand(2, 10))[0]
    torch.testing.assert_close(learned.read(0, x[:1], torch.rand(1, 10))[0], together[:1])


@torch.no_grad()
def test_places_in_time_may_go_into_the_stream() -> None:
    torch.manual_seed(0)
    model = MODELS["vdt"](places_in_stream=True).eval()
    x = torch.randn(1, 3, 1, 8, 8).expand(-1, -1, 3, -1, -1)
    # attention over time starts at zero: only places tell one frame from the next
    frames = model(x, torch.tensor(5.0)).sample.unbind(2)
    assert float((frames[0] - frames[1]).abs().max()) > 1e-3
    frames = MODELS["vdt"]().eval()(x, torch.tensor(5.0)).sample.unbind(2)
    torch.testing.assert_close(frames[0], frames[1])
