"""LaDiNE: the algebra of its diffusion against the paper's equations, its parts, and what a user can get wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from outpace.errors import ConfigError, InputError, UnknownNameError
from outpace.pipelines.ladine import LadineDenoiser, LadineEncoder, LadineMapping, LadinePipeline, LadineScheduler
from outpace.pipelines.ladine.calibration import fit_iota, fit_temperature
from outpace.pipelines.ladine.chart import read_chart
from outpace.pipelines.ladine.corruptions import CORRUPTIONS, attack
from outpace.pipelines.ladine.sampling import AVERAGES, answer, averaged, draw_labels, probabilities_of
from outpace.pipelines.ladine.scheduler import PREDICTIONS
from outpace.pipelines.load import load_pipeline

CLASSES, TIMES = 4, 50


def build(*, encoded_mean: bool = False, seed: int = 0) -> LadinePipeline:
    torch.manual_seed(seed)
    return LadinePipeline(
        LadineEncoder(width=16, num_layers=3, num_heads=2, num_classes=CLASSES).eval(),
        LadineMapping(members=2, token_width=16, width=8, num_classes=CLASSES).eval(),
        LadineDenoiser(
            members=2, num_classes=CLASSES, width=12, num_train_timesteps=TIMES, encoded_mean=encoded_mean
        ).eval(),
        LadineScheduler(num_train_timesteps=TIMES),
        samples=3,
    )


@pytest.fixture(scope="module")
def pipe() -> LadinePipeline:
    return build()


@pytest.fixture
def pictures() -> torch.Tensor:
    return torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def rows(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# The forward and the reverse process


def test_one_step_at_a_time_gives_the_forward_process_in_one_go() -> None:
    scheduler = LadineScheduler(num_train_timesteps=TIMES)
    label, mean = rows(1, CLASSES, seed=1), rows(1, CLASSES, seed=2)
    expected, spread = label, torch.zeros(())
    for time, beta in enumerate(scheduler.betas):
        kept = 1 - beta
        expected = kept.sqrt() * expected + (1 - kept.sqrt()) * mean
        spread = kept * spread + beta
        made = scheduler.add_noise(label, torch.zeros_like(label), torch.tensor([time]), mean)
        torch.testing.assert_close(made, expected, atol=1e-6, rtol=0)
        noised = scheduler.add_noise(label, torch.ones_like(label), torch.tensor([time]), mean)
        torch.testing.assert_close((noised - made) ** 2, spread.expand_as(made), atol=1e-6, rtol=0)


def test_draws_of_the_forward_process_have_its_mean_and_variance() -> None:
    scheduler = LadineScheduler(num_train_timesteps=TIMES)
    label, mean, time = rows(1, CLASSES, seed=1), rows(1, CLASSES, seed=2), 17
    draws, kept = 100_000, scheduler.alphas_cumprod[time]
    level = torch.full((draws,), time)
    made = scheduler.add_noise(label.expand(draws, -1), rows(draws, CLASSES, seed=3), level, mean)
    expected = kept.sqrt() * label + (1 - kept.sqrt()) * mean
    error = 5 * ((1 - kept) / draws).sqrt()
    assert (made.mean(0) - expected[0]).abs().max() < error
    assert (made.var(0) / (1 - kept) - 1).abs().max() < 5 * (2 / draws) ** 0.5


def test_both_predictions_take_the_same_step() -> None:
    label, mean, noise, fresh = (rows(5, CLASSES, seed=seed) for seed in range(4))
    noised = LadineScheduler(num_train_timesteps=TIMES).add_noise(label, noise, torch.full((5,), 20), mean)
    made = [
        LadineScheduler(num_train_timesteps=TIMES, prediction_type=prediction).step(seen, 20, noised, mean, fresh)
        for prediction, seen in (("epsilon", noise), ("sample", label))
    ]
    torch.testing.assert_close(made[0].prev_sample, made[1].prev_sample, atol=1e-6, rtol=0)


@pytest.mark.parametrize("time", [1, 2, 17, TIMES - 1])
def test_a_step_is_the_posterior_of_the_paper(time: int) -> None:
    scheduler = LadineScheduler(num_train_timesteps=TIMES)
    beta, kept, before = scheduler.betas[time], scheduler.alphas_cumprod[time], scheduler.alphas_cumprod[time - 1]
    alpha = 1 - beta
    label, mean, noise, fresh = (rows(5, CLASSES, seed=seed) for seed in range(4))
    noised = scheduler.add_noise(label, noise, torch.full((5,), time), mean)
    g0 = beta * before.sqrt() / (1 - kept)
    g1 = (1 - before) * alpha.sqrt() / (1 - kept)
    g2 = 1 + (kept.sqrt() - 1) * (alpha.sqrt() + before.sqrt()) / (1 - kept)
    sigma = ((1 - before) * beta / (1 - kept)).sqrt()
    made = scheduler.step(noise, time, noised, mean, fresh)
    torch.testing.assert_close(made.pred_original_sample, label, atol=1e-6, rtol=0)
    expected = g0 * label + g1 * noised + g2 * mean + sigma * fresh
    torch.testing.assert_close(made.prev_sample, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("time", [1, 17, TIMES - 1])
def test_the_posterior_is_bayes_rule(time: int) -> None:
    scheduler = LadineScheduler(num_train_timesteps=TIMES)
    beta, before = scheduler.betas[time], scheduler.alphas_cumprod[time - 1]
    alpha = 1 - beta
    label, mean, noise = (rows(5, CLASSES, seed=seed) for seed in range(3))
    noised = scheduler.add_noise(label, noise, torch.full((5,), time), mean)
    prior, step = 1 - before, beta
    precision = 1 / prior + alpha / step
    prior_mean = before.sqrt() * label + (1 - before.sqrt()) * mean
    seen = alpha.sqrt() * (noised - (1 - alpha.sqrt()) * mean) / step
    expected = (prior_mean / prior + seen) / precision
    made = scheduler.step(noise, time, noised, mean, torch.zeros_like(noised)).prev_sample
    torch.testing.assert_close(made, expected, atol=1e-6, rtol=0)
    spread = scheduler.step(noise, time, noised, mean, torch.ones_like(noised)).prev_sample - made
    torch.testing.assert_close(spread**2, (1 / precision).expand_as(made), atol=1e-6, rtol=0)


@pytest.mark.parametrize("steps", [1, 7, TIMES])
@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_what_is_true_leads_back_to_the_label_in_any_number_of_steps(steps: int, eta: float, prediction: str) -> None:
    scheduler = LadineScheduler(num_train_timesteps=TIMES, eta=eta, prediction_type=prediction)
    scheduler.set_timesteps(steps)
    label, mean, noised = (rows(5, CLASSES, seed=seed) for seed in range(3))
    for time in scheduler.timesteps.tolist():
        kept = scheduler.alphas_cumprod[time]
        noise = (noised - kept.sqrt() * label - (1 - kept.sqrt()) * mean) / (1 - kept).sqrt()
        seen = noise if prediction == "epsilon" else label
        noised = scheduler.step(seen, time, noised, mean, rows(5, CLASSES, seed=time)).prev_sample
    torch.testing.assert_close(noised, label, atol=1e-6, rtol=0)


def test_the_last_time_is_noise_around_the_mean() -> None:
    assert all(float(LadineScheduler(num_train_timesteps=times).alphas_cumprod[-1]) < 1e-4 for times in (50, 100, 1000))
    assert float(LadineScheduler().betas[0]) == pytest.approx(1e-4)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"num_train_timesteps": 3}, "fewer than 20"),
        ({"eta": 1.5}, "eta is 1.5"),
        ({"eta": float("nan")}, "eta is nan"),
        ({"prediction_type": "noise"}, "prediction_type 'noise'"),
    ],
)
def test_settings_of_the_scheduler_are_checked(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        LadineScheduler(**settings)


@pytest.mark.parametrize("steps", [0, TIMES + 1])
def test_steps_that_the_diffusion_does_not_have(pipe: LadinePipeline, pictures: torch.Tensor, steps: int) -> None:
    with pytest.raises(ConfigError, match=f"takes 1 to {TIMES}"):
        pipe(pictures, num_inference_steps=steps)


# Samples and what is made of them


def test_every_member_draws_for_every_picture(pipe: LadinePipeline, pictures: torch.Tensor) -> None:
    made = pipe(pictures, num_inference_steps=5, samples=7, generator=torch.Generator().manual_seed(0))
    assert made.labels.shape == (2 * 7, 3, CLASSES)
    torch.testing.assert_close(made.probabilities.sum(1), torch.ones(3))
    torch.testing.assert_close(made.votes.sum(1), torch.ones(3))
    assert bool((made.low <= made.high).all()) and bool((made.width >= 0).all())
    assert float((made.labels[:7].mean(0) - made.labels[7:].mean(0)).abs().max()) > 1e-3  # members differ


def test_a_picture_does_not_depend_on_its_batch(pipe: LadinePipeline, pictures: torch.Tensor) -> None:
    def own() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in range(3)]

    together = pipe(pictures, num_inference_steps=5, generator=own()).labels
    alone = pipe(pictures[1:2], num_inference_steps=5, generator=own()[1:2]).labels
    torch.testing.assert_close(alone[:, 0], together[:, 1], atol=1e-5, rtol=1e-5)


def test_the_mean_of_the_paper_shifts_by_what_the_picture_says(pictures: torch.Tensor) -> None:
    released, paper = build(), build(encoded_mean=True)
    z = released.guess(pictures)
    _, mean = released.denoiser.read(0, pictures, z[0])
    assert torch.equal(mean, z[0])
    code, mean = paper.denoiser.read(0, pictures, z[0])
    torch.testing.assert_close(mean - z[0], paper.denoiser.parts[0].shift(code))
    assert paper(pictures, num_inference_steps=5).probabilities.shape == (3, CLASSES)


def test_probabilities_reward_closeness_to_one() -> None:
    # Equation 26: a class beyond 1 is less likely than one nearer to 1, so the likeliest class is not the highest.
    label = torch.tensor([[1.6, 0.9, 0.0]])
    assert int(probabilities_of(label, 0.2).argmax()) == 1
    expected = torch.tensor([0.36, 0.01, 1.0]).div(-0.2).exp()
    torch.testing.assert_close(probabilities_of(label, 0.2)[0], expected / expected.sum())


def test_both_averages_and_the_figures_of_spread() -> None:
    labels = rows(40, 2, 3, seed=4)
    paper, released = answer(labels, 0.3, average="labels"), answer(labels, 0.3)
    torch.testing.assert_close(paper.probabilities, probabilities_of(labels.mean(0), 0.3))
    torch.testing.assert_close(released.probabilities, probabilities_of(labels, 0.3).mean(0))
    torch.testing.assert_close(paper.variance, (4 * (labels - labels.mean(0)) ** 2).mean(0))
    ends = np.quantile(labels.numpy(), [0.025, 0.975], axis=0)
    np.testing.assert_allclose(paper.width.numpy(), ends[1] - ends[0], atol=1e-9)
    assert float(paper.votes[0, 1]) == float((labels[:, 0].argmax(1) == 1).double().mean())


@pytest.mark.parametrize("iota", [0.0, -1.0, float("nan")])
def test_an_iota_that_is_no_sharpness(iota: float) -> None:
    with pytest.raises(ConfigError, match="above 0"):
        answer(rows(2, 1, 3), iota)


def test_calibration_finds_what_the_probabilities_were_made_with() -> None:
    labels, drawn = rows(3, 20_000, CLASSES, seed=5), torch.Generator().manual_seed(6)
    for average in AVERAGES:
        classes = averaged(labels, 0.7, average).multinomial(1, generator=drawn)[:, 0]
        assert fit_iota(labels, classes, average) == pytest.approx(0.7, rel=0.1)
    classes = (labels[0] / 2.5).softmax(-1).multinomial(1, generator=drawn)[:, 0]
    assert fit_temperature(labels[0], classes) == pytest.approx(2.5, rel=0.1)


def test_calibration_never_changes_which_class_is_likeliest() -> None:
    labels = rows(50, CLASSES, seed=7)
    first, second = probabilities_of(labels, 0.05), probabilities_of(labels, 3.0)
    assert torch.equal(first.argmax(1), second.argmax(1))


# Pictures, saving, mistakes


def test_pictures_come_as_tensors_arrays_images_and_files(pipe: LadinePipeline, tmp_path: Path) -> None:
    array = (np.arange(64).reshape(8, 8) * 4).astype(np.uint8)
    Image.fromarray(array).save(tmp_path / "a.png")
    Image.fromarray(array.repeat(4, 0).repeat(4, 1)).save(tmp_path / "large.png")
    given = [array / 255, Image.fromarray(array), tmp_path / "a.png", str(tmp_path / "large.png")]
    read = pipe.read_pictures(given)
    expected = torch.tensor(array / 255, dtype=torch.float32)[None]
    for picture in read:
        torch.testing.assert_close(picture, expected, atol=1e-6, rtol=0)


def test_a_chart_says_what_the_probabilities_say(pipe: LadinePipeline, pictures: torch.Tensor) -> None:
    made = pipe(pictures, num_inference_steps=5, output_type="np")
    assert made.images.shape[0] == 3 and 0 <= made.images.min() and made.images.max() <= 1
    assert [read_chart(chart, CLASSES) for chart in made.images] == made.probabilities.argmax(1).tolist()
    assert pipe(pictures[:1], num_inference_steps=5, output_type="pil").images[0].mode == "RGB"


def test_a_saved_pipeline_says_the_same(pipe: LadinePipeline, pictures: torch.Tensor, tmp_path: Path) -> None:
    pipe.register_to_config(iota={"probabilities": 0.123, "labels": 0.456})
    pipe.save_pretrained(tmp_path)
    again = load_pipeline(str(tmp_path)).pipe
    first, second = (
        one(pictures, num_inference_steps=5, generator=torch.Generator().manual_seed(3)) for one in (pipe, again)
    )
    assert again.config["iota"] == {"probabilities": 0.123, "labels": 0.456}
    assert torch.equal(first.probabilities, second.probabilities)


@pytest.mark.parametrize(
    ("pictures", "said"),
    [
        (torch.rand(2, 3, 8, 8), r"shape \[2, 3, 8, 8\]"),
        (torch.rand(8, 8), "shape"),
        (torch.full((1, 1, 8, 8), 2.0), r"0\.\.1"),
        (torch.full((1, 1, 8, 8), torch.nan), r"0\.\.1"),
        ([], "at least one"),
        (["no/such.png"], "cannot read the picture 'no/such.png'"),
        ([Path(__file__)], "cannot read the picture"),
    ],
)
def test_pictures_that_cannot_be_used(pipe: LadinePipeline, pictures: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        pipe(pictures)


def test_calls_that_cannot_be_answered(pipe: LadinePipeline, pictures: torch.Tensor) -> None:
    with pytest.raises(InputError, match="3 pictures but 1 generators"):
        pipe(pictures, generator=[torch.Generator()])
    with pytest.raises(InputError, match="output_type 'jpg'"):
        pipe(pictures, output_type="jpg")
    with pytest.raises(ConfigError, match="0 samples"):
        pipe(pictures, samples=0)
    with pytest.raises(ConfigError, match="average 'median'"):
        answer(rows(2, 1, 3), 0.2, average="median")
    with pytest.raises(ConfigError, match="2 members and 3 pictures"):
        draw_labels(pipe.denoiser, pipe.scheduler, pictures, torch.ones(1, 3, CLASSES), samples=1, steps=5)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: LadineEncoder(sample_size=9), "patches of 2 pixels"),
        (lambda: LadineEncoder(width=30), "4 heads"),
        (lambda: LadineMapping(members=0), "0 members"),
        (lambda: LadineDenoiser(members=0), "0 members"),
    ],
)
def test_parts_that_cannot_be_built(make: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make()  # pyright: ignore[reportCallIssue]


def test_parts_that_do_not_fit_each_other(pipe: LadinePipeline) -> None:
    parts = {name: getattr(pipe, name) for name in ("encoder", "mapping", "denoiser", "scheduler")}
    with pytest.raises(ConfigError, match="3 mapping networks for 2"):
        LadinePipeline(**{**parts, "mapping": LadineMapping(members=3, token_width=16)})
    with pytest.raises(ConfigError, match="numbers of times"):
        LadinePipeline(**{**parts, "scheduler": LadineScheduler()})
    with pytest.raises(ConfigError, match="no iota for the average 'labels'"):
        LadinePipeline(**parts, iota={"probabilities": 0.2}, average="labels")
    with pytest.raises(ConfigError, match="encoder of 1 blocks"):
        LadinePipeline(**{**parts, "encoder": LadineEncoder(width=16, num_layers=1, num_heads=2)})


# Corruptions and attacks


@pytest.mark.parametrize("name", list(CORRUPTIONS))
def test_corruptions_keep_pictures_pictures_and_repeat(name: str, pictures: torch.Tensor) -> None:
    once, again = (CORRUPTIONS[name](pictures.clone(), torch.Generator().manual_seed(2)) for _ in range(2))
    assert once.shape == pictures.shape and torch.equal(once, again)
    assert 0 <= float(once.min()) and float(once.max()) <= 1
    assert torch.equal(once, pictures) == (name == "clean")


def test_an_unknown_corruption_names_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="noise-50"):
        CORRUPTIONS["noise-55"]


@pytest.mark.parametrize("steps", [1, 5])
def test_an_attack_stays_in_its_radius_and_makes_the_right_class_less_likely(
    pipe: LadinePipeline, pictures: torch.Tensor, steps: int
) -> None:
    classes = torch.tensor([0, 1, 2])

    def log_probabilities(images: torch.Tensor) -> torch.Tensor:
        return pipe.encoder(images).log_softmax(-1)

    moved = attack(pictures, classes, log_probabilities, radius=0.05, steps=steps)
    assert float((moved - pictures).abs().max()) <= 0.05 + 1e-6
    assert 0 <= float(moved.min()) and float(moved.max()) <= 1
    before, after = (
        torch.nn.functional.nll_loss(log_probabilities(one), classes, reduction="none").detach()
        for one in (pictures, moved)
    )
    assert bool((after > before).all())
