"""The runs that a calibration compares, and how."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from outpace.accel.calibration import runs
from outpace.errors import ConfigError

torch.set_num_threads(1)


def test_psnr_and_the_largest_difference() -> None:
    one, other, peak = torch.zeros(2, 4), torch.full((2, 4), 0.1), torch.tensor([1.0, 2.0])
    assert runs.psnr(one, other, peak) == [pytest.approx(20.0), pytest.approx(20 + 20 * math.log10(2))]
    assert runs.psnr(one, torch.full((2, 4), math.nan), peak) == [-math.inf] * 2
    assert runs.psnr(one, one, peak) == [pytest.approx(120.0), pytest.approx(120 + 20 * math.log10(2))]
    latents = torch.tensor([[[-1.0, 3.0]], [[2.0, 2.5]]])

    class Pipe:
        scheduler = SimpleNamespace(step=lambda: (latents,))

    pipe = Pipe()
    made, reach = runs.made(pipe, lambda: SimpleNamespace(images=[pipe.scheduler.step()[0]]))
    assert made.shape == (2, 2) and reach.tolist() == [4.0, 0.5]
    pictures, reach = runs.made(pipe, lambda: SimpleNamespace(images=torch.full((2, 1, 2, 2), 0.5)))
    assert pictures.shape == (2, 4) and reach.tolist() == [1.0, 1.0]


def test_every_prompt_has_its_noise_whatever_it_is_run_with() -> None:
    class Pipe:
        def __call__(self, prompt: list[str], output_type: str = "pil", generator: Any = None) -> Any:
            return prompt, output_type, [one.initial_seed() for one in generator]

    run = runs.caller(Pipe(), ["a", "b", "c"], {}, 7)
    assert run([0, 2]) == (["a", "c"], "np", [7, 9]) and run([2]) == (["c"], "np", [9])
    with pytest.raises(ConfigError, match="a list of prompts"):
        runs.caller(Pipe(), "a", {}, 7)


def test_one_negative_prompt_is_repeated_for_every_prompt_of_a_call() -> None:
    asked: list[Any] = []

    class Pipe:
        def __call__(self, prompt: list[str], negative_prompt: list[str], generator: Any = None) -> None:
            asked.append((prompt, negative_prompt))

    runs.caller(Pipe(), ["a", "b", "c"], {"negative_prompt": "x"}, 0)([0, 2])
    runs.caller(Pipe(), ["a", "b"], {"negative_prompt": ["x", "y"]}, 0)([0, 1])
    assert asked == [(["a", "c"], ["x", "x"]), (["a", "b"], ["x", "y"])]
