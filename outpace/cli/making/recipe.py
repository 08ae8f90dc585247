"""What made a picture, as plain data that travels inside the file, with the command that makes it again."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from outpace import __version__


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What the pictures of one `outpace generate` share."""

    pipeline: str
    """As named on the command line."""
    acceleration: tuple[str, ...]
    """The words of the command line that chose it: ("--preset", "balanced")."""
    settings: dict[str, Any]
    """Options of the command line that were given, by name: {"steps": 28}."""
    arguments: dict[str, Any]
    """Arguments of the pipeline's call, its defaults among them."""
    device: str
    """Where it ran."""
    words: tuple[str, ...] = ()
    """More words of the command line: adapters, pictures to start from."""
    inputs: dict[str, str] = field(default_factory=dict)
    """Digest of each picture that it started from, by its path."""
    methods: list[dict[str, Any]] = field(default_factory=list)
    """The methods with all their settings, as the trace reports them."""

    def command(self, text: str, seed: int) -> str:
        """The shell command that makes the picture of `text` and `seed` again."""
        words = ["outpace", "generate", self.pipeline, "--prompt", text, "--seed", str(seed), *self.acceleration]
        words += [word for name, value in self.settings.items() for word in (f"--{name}", str(value))]
        return shlex.join([*words, *self.words])

    def shared(self) -> dict[str, Any]:
        """What does not depend on the picture, with the versions it was made with."""
        return {
            "outpace": __version__,
            "torch": version("torch"),
            "diffusers": version("diffusers"),
            "pipeline": self.pipeline,
            "arguments": {k: v for k, v in self.arguments.items() if isinstance(v, int | float | str)},
            "device": self.device,
            "methods": self.methods,
            **({"inputs": self.inputs} if self.inputs else {}),
        }

    def of(self, text: str, seed: int) -> dict[str, Any]:
        """The recipe of one picture."""
        return {**self.shared(), "prompt": text, "seed": seed, "command": self.command(text, seed)}
