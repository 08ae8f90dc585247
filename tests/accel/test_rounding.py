"""What rounding adds to measured errors is known beforehand, taken off, and nothing in float32."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from forecast_parts import call_of
from tiny import TinyPipeline

from outpace.accel import GatedTaylor, accelerate
from outpace.accel.families import find_family
from outpace.accel.forecast import History
from outpace.accel.forecast.rounding import LEAST, ONE_ROUNDING, noise_of, residual_additions, without_rounding
from outpace.kernels.forecast import lagrange_weights, relative_error


def spread_out(count: int, seed: int) -> torch.Tensor:
    """Numbers of both signs over several powers of two."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.exp2(6.0 * torch.rand(count, generator=generator, dtype=torch.float64) - 3.0)
    return sizes * (torch.randint(0, 2, (count,), generator=generator) * 2 - 1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_as_large_as_blocks_make_it_that_round_their_tokens(dtype: torch.dtype) -> None:
    exact = spread_out(1 << 15, 0)
    rounded, sizes = exact.clone(), []
    for block in range(12):  # every block adds twice, and tokens become larger by it
        for addition in (spread_out(1 << 15, 2 * block + 1), spread_out(1 << 15, 2 * block + 2)):
            exact, rounded = exact + 0.3 * addition, (rounded + 0.3 * addition).to(dtype).double()
        sizes.append(float(exact.abs().mean()))
    measured = float((rounded - exact).abs().mean()) / sizes[-1]
    assert noise_of(dtype, sizes, [2] * 12) == pytest.approx(measured, rel=0.12)
    assert noise_of(dtype, sizes, [1] * 12) == pytest.approx(noise_of(dtype, sizes, [2] * 12) / math.sqrt(2.0))


def test_nothing_is_taken_off_in_float32_or_where_nothing_is_known() -> None:
    assert noise_of(torch.float32, [1.0, 2.0], [2, 2]) == 0.0
    assert noise_of(torch.bfloat16, [], []) == 0.0
    assert noise_of(torch.bfloat16, [1.0, math.nan], [1, 1]) == 0.0
    assert without_rounding(0.1234567, 0.0, [3.0, -3.0, 1.0]) == 0.1234567
    assert math.isnan(without_rounding(math.nan, 0.01, [1.0]))


@pytest.mark.parametrize("order", [1, 2])
def test_an_error_in_bfloat16_is_that_in_float32_again(order: int) -> None:
    start, slope, bend = (spread_out(1 << 15, seed) for seed in (0, 1, 2))
    values = [(start + 0.02 * step * slope + 0.02 * step * step * (1 + step / 3) * bend).float() for step in range(4)]
    nodes = [float(step) for step in range(2 - order, 3)]
    weights = lagrange_weights(nodes, 3.0)

    def missed(some: list[torch.Tensor]) -> float:
        guess = sum(weight * value.float() for weight, value in zip(weights, some[2 - order : 3], strict=True))
        return float(relative_error(torch.as_tensor(guess), some[3].float()))

    exact, rounded = missed(values), missed([value.bfloat16() for value in values])
    noise = ONE_ROUNDING * torch.finfo(torch.bfloat16).eps
    assert without_rounding(rounded, noise, weights) == pytest.approx(exact, rel=0.1)
    fine = missed([start.bfloat16()] * 4)
    assert fine == 0.0 and missed([start.float()] * 4) == pytest.approx(0.0, abs=1e-6)


def test_some_of_every_error_stays() -> None:
    assert without_rounding(0.01, 1.0, [1.0]) == LEAST * 0.01


def test_a_history_learns_its_errors_without_the_rounding() -> None:
    """The rate that it takes to heart is that of an error from which the noise of three rounded values is gone."""
    found = {}
    for noise in (0.0, 0.01):
        history = History(1, 1, noise=noise)
        for step in (0.0, 1.0):
            history.push(step, int(step), None, torch.ones(4, 2))
        history.learn(2.0, [0.05])
        found[noise] = history.rates[1]
    assert found[0.01] == pytest.approx(found[0.0] * math.sqrt(0.05**2 - 0.01**2 * (1 + 4 + 1)) / 0.05)


@pytest.mark.parametrize(
    ("cls", "counts"),
    [
        ("FluxTransformer2DModel", {"FluxTransformerBlock": 2, "FluxSingleTransformerBlock": 1}),
        ("WanTransformer3DModel", {"WanTransformerBlock": 3}),
        ("DiTTransformer2DModel", {"BasicTransformerBlock": 2}),
        ("SD3Transformer2DModel", {"JointTransformerBlock": 2}),
        ("QwenImageTransformer2DModel", {"QwenImageTransformerBlock": 2}),
    ],
)
def test_additions_of_a_block_are_counted_by_its_layers(cls: str, counts: dict[str, int]) -> None:
    model = TinyPipeline(cls).transformer
    blocks = [block for _, block in find_family(model).blocks(model)]
    assert {type(block).__name__: residual_additions(block) for block in blocks} == counts


def test_a_block_of_unknown_layers_adds_once() -> None:
    assert residual_additions(torch.nn.Sequential(torch.nn.Linear(2, 2))) == 1


@pytest.mark.parametrize("gate", ["plan", "budget"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_first_call_of_a_run_tells_how_much_is_taken_off(
    dtype: torch.dtype, gate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tiny

    for name in ("noise", "texts"):
        made = getattr(tiny, name)
        monkeypatch.setattr(tiny, name, lambda *given, _made=made: _made(*given).to(dtype))
    pipe = TinyPipeline("FluxTransformer2DModel")
    pipe.transformer.to(dtype)
    seen: dict[str, float] = {}

    def without(error: float, noise: float, weights: list[float]) -> float:
        seen["most"] = max(noise, seen.get("most", 0.0))
        seen["least"] = min(noise, seen.get("least", math.inf))
        return error

    monkeypatch.setattr("outpace.accel.forecast.history.without_rounding", without)
    with accelerate(pipe, GatedTaylor(threshold=5.0, gate=gate)):
        pipe([0, 1], steps=8)
    one = ONE_ROUNDING * torch.finfo(dtype).eps
    if dtype == torch.float32:
        assert seen == {"most": 0.0, "least": 0.0}
        return
    blocks = len(pipe.transformer.transformer_blocks), len(pipe.transformer.single_transformer_blocks)
    # The first block rounds twice; the last output holds what every block rounded, of tokens about as large.
    assert seen["most"] == pytest.approx(one * math.sqrt(2 * blocks[0] + blocks[1]), rel=0.3)
    if gate == "budget":
        assert seen["least"] == pytest.approx(one * math.sqrt(2), rel=1e-6)


def test_a_row_has_the_rounding_of_its_own_tokens_whatever_it_is_made_with() -> None:
    sizes = torch.tensor([[1.0, 4.0], [2.0, 1.0]])  # behind two blocks, of two rows
    active = call_of(2, 1, first={"hidden": torch.zeros(2, 3, 5, dtype=torch.bfloat16)}, sizes={})
    blocks = [SimpleNamespace(module=torch.nn.Identity())] * 2
    active.current = SimpleNamespace(denoiser=SimpleNamespace(ranks=None, blocks=blocks))  # type: ignore[assignment]
    for size in sizes:
        active.note_size("hidden", size[:, None, None].expand(2, 3, 5).bfloat16())
    (told,) = active.told_sizes()
    active.learn_noise(told.flatten().tolist())
    for row, history in enumerate(active.histories):
        own = sizes[:, row].tolist()
        assert history.noise == pytest.approx(noise_of(torch.bfloat16, own, [1, 1]))
        assert history.first_noise == pytest.approx(noise_of(torch.bfloat16, own[:1], [1]))
