"""Numbers on the command line: sizes, counts and seeds, each with the one range that every command holds it to.

A number that no pipeline could take is refused where it is read, before anything is loaded or allocated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

from outpace.errors import InputError

Command = TypeVar("Command", bound=Callable[..., Any])

MOST_PIXELS = 16_384
"""A side of a picture; published pipelines end at 4096."""
MOST_FRAMES = 10_000
MOST_STEPS = 10_000
MOST_SAMPLES = 100_000
"""Prompts, samples, runs: more is taken for a slip."""
MOST_SEED = 2**63 - 1
"""What torch's generators take."""


class FiniteRange(click.FloatRange):
    """A range of numbers that NaN and infinity are outside of."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


class WholeRange(click.IntRange):
    """A range of whole numbers whose refusal does not repeat a hundred digits."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        text = str(value)
        if len(text) > 25:
            self.fail(f"a number of {len(text)} characters is not in the range {self._describe_range()}.", param, ctx)
        return super().convert(value, param, ctx)


PIXELS = WholeRange(1, MOST_PIXELS)
FRAMES = WholeRange(1, MOST_FRAMES)
STEPS = WholeRange(1, MOST_STEPS)
COUNT = WholeRange(1, MOST_SAMPLES)
NUMBER = WholeRange(0, MOST_SAMPLES)
"""A count that may be nothing."""
SEED = WholeRange(0, MOST_SEED)


def size_options(command: Command) -> Command:
    """Add --height, --width and --frames to a command, None where they are not given."""
    for name, kind, metavar, words in (
        ("--frames", FRAMES, "N", "Frames of a clip [default: the model's]."),
        ("--width", PIXELS, "PIXELS", "[default: the model's]"),
        ("--height", PIXELS, "PIXELS", "[default: the model's]"),
    ):
        command = click.option(name, type=kind, metavar=metavar, help=words)(command)
    return command


def check_seed(seed: int, count: int = 1) -> None:
    """Raises: InputError where `count` seeds from `seed` up leave what a generator takes."""
    if not 0 <= seed <= MOST_SEED - count:
        raise InputError(f"the seed {seed} is too large for {count} samples; stay below 2 to the 63rd")
