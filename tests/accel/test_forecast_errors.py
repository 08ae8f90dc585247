"""How far off forecasts and interpolations prove to be, and how far forecasts follow the latents."""

from __future__ import annotations

import pytest
import torch
from forecast_parts import FLOW, entry, normal

from outpace.accel.forecast.entries import HIGHEST, Entry, Group
from outpace.accel.forecast.errors import Best, _best, _between, _forecasts, _products, measure, off_scale
from outpace.accel.prediction import Prediction
from outpace.kernels.forecast import lagrange_weights

torch.set_num_threads(1)


def test_the_best_mixture_lies_on_the_way_between_two_orders() -> None:
    truth, low, high = torch.tensor([3.0, 4.0]), torch.tensor([3.0, 0.0]), torch.tensor([3.0, 5.0])

    def found(*guesses: torch.Tensor, lowest: int) -> Best:
        """Of the second of two rows."""
        numbers = _products(torch.stack([truth + 7, truth]), [torch.stack([truth, guess]) for guess in guesses])
        return _best(numbers[:, 1].tolist(), len(guesses), lowest)

    best = found(low, high, lowest=0)
    assert best.order == pytest.approx(4 / 5) and best.error == pytest.approx(0.0, abs=1e-6)
    assert best.errors == (pytest.approx(4 / 5), pytest.approx(1 / 5))
    beyond = found(torch.tensor([3.0, 5.0]), torch.tensor([3.0, 6.0]), lowest=1)
    assert (beyond.order, beyond.error) == (1.0, pytest.approx(1 / 5)), "never outside of the two"
    short = found(low, torch.tensor([3.0, 3.0]), lowest=1)
    assert (short.order, short.error) == (2.0, pytest.approx(1 / 5))
    three = found(low, torch.tensor([3.0, 2.0]), high, lowest=0)
    assert three.order == pytest.approx(1 + 2 / 3) and three.error == pytest.approx(0.0, abs=1e-6)


def test_what_is_measured_at_a_computed_step() -> None:
    clean = normal(2, 3, 2)
    known = [entry(step, 1 - step / 10, clean) for step in (0, 2, 4)]
    skipped = [entry(3, 0.7, clean + 9, computed=False), entry(5, 0.5, clean + 9, computed=False)]
    now = entry(6, 0.4, clean)
    found = measure(FLOW, [known[0], known[1], skipped[0], known[2], skipped[1]], now, [1])
    assert set(found) == {1} and (found[1].step, found[1].gap) == (6, 2)
    assert len(found[1].forecast.errors) == HIGHEST + 1 and found[1].replay is not None
    # one noise, one picture: outputs do not change, latents lie on a line
    assert len(found[1].replay.errors) == HIGHEST and found[1].replay.error == pytest.approx(0.0, abs=1e-5)
    assert found[1].forecast.errors[1:] == (pytest.approx(0.0, abs=1e-5), pytest.approx(0.0, abs=1e-5))
    twice = [*known[:2], entry(4, 0.4, clean + 9)]  # a second stage at this level is no step before
    assert measure(FLOW, twice, now, [0])[0].gap == 4
    now.clean.requires_grad_()  # someone's own loop, who wants gradients
    assert measure(FLOW, known, now, [1])[1].replay == found[1].replay
    assert measure(FLOW, [], now, [0]) == {} and measure(FLOW, known[:1], now, [0])[0].replay is None


def test_what_a_row_measures_is_its_own() -> None:
    """Rows that were computed at different steps, each beside what it measures alone."""
    steps = [entry(step, 1 - step / 10, normal(4, 3, 2, seed=step), seed=step + 50) for step in range(7)]
    for row, skipped in enumerate([(1, 3, 5), (2, 4, 5), (1, 3, 5), (0, 1, 2, 3, 4, 5)]):
        for step in skipped:
            steps[step].computed[row] = False
    steps[4].sample = steps[4].seen + 0.3
    steps[4].hold(steps[4].clean[[0, 2]] + 0.1, Group([0, 2], steps[4].clean))
    *known, now = steps
    together = measure(FLOW, known, now, range(4))
    assert sorted(together) == [0, 1, 2] and [together[row].gap for row in range(3)] == [2, 3, 2]
    for row in range(3):
        group = Group([row], now.clean)
        alone = measure(FLOW, [one.of(group) for one in known], now.of(group), [0])[0]
        for one, other in ((together[row].forecast, alone.forecast), (together[row].replay, alone.replay)):
            assert one is not None and other is not None and len(one.errors) == len(other.errors) > 1
            assert (one.order, one.error, *one.errors) == pytest.approx((other.order, other.error, *other.errors))


@pytest.mark.parametrize("kind", ["flow", "v_prediction", "sample"])
@pytest.mark.parametrize(("size", "u"), [(1.0, 0.9), (0.5, 0.9), (3.0, 1.0)])
def test_a_clean_picture_is_held_against_the_size_of_pictures(kind: str, size: float, u: float) -> None:
    prediction = Prediction(kind, "flow" if kind == "flow" else "preserving")
    alpha, sigma = prediction.scales(u)
    clean = normal(2, 3, 400)
    clean = size * clean / clean.square().mean((1, 2), keepdim=True).sqrt()
    seen = alpha * clean + sigma * normal(2, 3, 400, seed=7)
    now = Entry(0, u, [True, True], seen, clean, seen, {})
    output = prediction.output(u, seen, clean)
    # the output is linear in the clean picture: by hand, with how much it moves with it
    moves = {"flow": 1 / sigma, "v_prediction": 1 / sigma, "sample": 1.0}[kind]
    expected = abs(1 - size) * moves / output.square().mean((1, 2)).sqrt()
    assert off_scale(prediction, now) == pytest.approx(expected.tolist(), rel=1e-4, abs=1e-5)


def test_noise_predicted_from_noise_tells_nothing_of_the_picture() -> None:
    clean = normal(1, 3, 4)
    for u, told in ((0.997, False), (0.2, True)):
        prediction = Prediction("epsilon", "preserving")
        alpha, sigma = prediction.scales(u)
        seen = alpha * clean + sigma * normal(1, 3, 4, seed=7)
        assert (off_scale(prediction, Entry(0, u, [True], seen, clean, seen, {})) is not None) == told


@pytest.mark.parametrize("corrected", [False, True])
def test_a_forecast_and_an_interpolation_are_moved_to_the_latents_held(corrected: bool) -> None:
    """Both belong to the latents that their weights give; those of a step that was corrected count, not those seen."""
    clean, off = normal(1, 4), normal(1, 4, seed=5)
    nodes = [entry(step, 1 - step / 10, clean) for step in (0, 2, 4)]
    line = 0.4 * clean + 0.6 * normal(1, 4, seed=99)  # one noise: latents lie on a line, and forecasts give the picture
    by = torch.zeros(1, 4)
    if corrected:
        nodes[2].sample, by = nodes[2].seen + 0.25, torch.full((1, 4), 0.25)
        nodes[2].hold(clean + 0.125, Group([0], clean))
    now = Entry(4, 0.6, [True], line + off, clean, line + off, {})
    weight = {2: -1.0, 4: 2.0}  # of a line from steps 2 and 4 at step 6
    later = Entry(6, 0.4, [True], now.seen, clean, 0.6 * clean + 0.4 * normal(1, 4, seed=99) + off, {})
    expected = clean + weight[4] * by / 2 + FLOW.gain(0.4) * (off - weight[4] * by)
    torch.testing.assert_close(_forecasts(FLOW, [nodes[2], nodes[1]], later)[1], expected)
    between = clean + FLOW.gain(0.6) * off
    torch.testing.assert_close(_between(FLOW, [nodes[1], nodes[0]], now), [between])
    weights = [0.5, 0.5]
    assert lagrange_weights([0.8, 0.4], 0.6) == pytest.approx(weights)
    outer = [nodes[1], entry(6, 0.4, clean)]
    if corrected:
        outer[1].sample = outer[1].seen + 0.25
        outer[1].hold(clean + 0.125, Group([0], clean))
    torch.testing.assert_close(_between(FLOW, outer, now), [clean + by / 4 + FLOW.gain(0.6) * (off - by / 2)])
