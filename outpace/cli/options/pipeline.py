"""What `generate` and `compare` take beside a pipeline's name: how it is set up, and what its call is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from outpace.cli.options.numbers import FiniteRange

if TYPE_CHECKING:
    from outpace.pipelines.inputs import Inputs
    from outpace.pipelines.setup import Setup

Command = TypeVar("Command", bound=Callable[..., Any])

OPTIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    (
        "--image",
        {"multiple": True, "metavar": "FILE", "help": "A picture to start from (repeatable where several go)."},
    ),
    ("--mask", {"metavar": "FILE", "help": "Of that picture: white is made anew."}),
    ("--strength", {"type": FiniteRange(0, 1, min_open=True), "help": "How far to go from the picture."}),
    ("--negative-prompt", {"metavar": "TEXT", "help": "What is not wanted."}),
    ("--lora", {"multiple": True, "metavar": "FILE[:SCALE]", "help": "An adapter (repeatable)."}),
    ("--variant", {"metavar": "NAME", "help": "Of the weights' files, such as fp16."}),
    ("--offload", {"type": click.Choice(["model", "group"]), "help": "Keep on the GPU only what runs."}),
    ("--compile", {"is_flag": True, "help": "Blocks through torch.compile; the first call takes minutes."}),
    ("--attention", {"metavar": "BACKEND", "help": "diffusers' attention backend: native, flash, sage ..."}),
    ("--quantize", {"type": click.Choice(["int8"]), "help": "8-bit weights, by torchao."}),
)
NAMES = tuple(flag.lstrip("-").replace("-", "_") for flag, _ in OPTIONS)


def pipeline_options(command: Command) -> Command:
    """Add them to a command."""
    for flag, settings in reversed(OPTIONS):
        command = click.option(flag, **settings)(command)
    return command


def take_options(given: dict[str, Any]) -> dict[str, Any]:
    """Take what `pipeline_options` added out of a command's options: plain data, only what was given."""
    taken = {name: given.pop(name) for name in NAMES}
    return {name: value for name, value in taken.items() if value not in (None, (), False)}


def setup_of(taken: dict[str, Any]) -> Setup:
    """How the pipeline is set up. Raises: ConfigError, InputError, MissingDependencyError."""
    from outpace.pipelines.setup import Setup

    setup = Setup(
        loras=tuple(taken.get("lora", ())),
        offload=taken.get("offload"),
        compiled=bool(taken.get("compile")),
        attention=taken.get("attention"),
        quantize=taken.get("quantize"),
    )
    setup.check()
    return setup


def inputs_of(taken: dict[str, Any]) -> Inputs:
    """What the call is given. Raises: ConfigError, InputError."""
    from outpace.cli.options.prompt import check_text
    from outpace.pipelines.inputs import Inputs

    check_text(taken.get("negative_prompt", ""))
    return Inputs(
        images=tuple(taken.get("image", ())),
        mask=taken.get("mask"),
        strength=taken.get("strength"),
        negative_prompt=taken.get("negative_prompt"),
    )


def words_of(taken: dict[str, Any]) -> list[str]:
    """What was given, as words of a command line."""
    words = []
    for name, value in taken.items():
        for one in value if isinstance(value, tuple) else (value,):
            words += [f"--{name.replace('_', '-')}"] if one is True else [f"--{name.replace('_', '-')}", str(one)]
    return words
