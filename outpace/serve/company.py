"""What a pipeline does to those who share a batch: how their prompts are padded, and how its steps are told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any


class Ticks:
    """Stands in for the progress bar of a diffusers pipeline, which every one of them moves at every step.

    Args:
        on_step: told how many steps were taken, and how many there are.
    """

    def __init__(
        self, on_step: Callable[[int, int], None], iterable: Iterable[Any] | None = None, total: int | None = None
    ) -> None:
        self.on_step, self.items = on_step, [] if iterable is None else list(iterable)
        self.total, self.taken = total or len(self.items), 0

    def __enter__(self) -> Ticks:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def __iter__(self) -> Iterator[Any]:
        for item in self.items:
            yield item
            self.update()

    def update(self, count: int = 1) -> None:
        self.taken += count
        self.on_step(self.taken, self.total)

    def set_postfix(self, *_: Any, **__: Any) -> None:
        """Some pipelines write beside their bar."""


def tokenizers_of(pipe: Any) -> list[Any]:
    """The tokenizers of a pipeline."""
    found = (getattr(pipe, f"tokenizer{number}", None) for number in ("", "_2", "_3", "_4"))
    return [tokenizer for tokenizer in found if tokenizer is not None]


def token_counts(pipe: Any, prompt: str) -> tuple[int, ...]:
    """How long a prompt is to each of the pipeline's tokenizers."""
    return tuple(len(tokenizer(prompt)["input_ids"]) for tokenizer in tokenizers_of(pipe))


def pads_alike(pipe: Any) -> bool:
    """True where a prompt's padding does not depend on the prompts beside it: found out with a short and a long one."""
    if not tokenizers_of(pipe):
        return True
    lengths = set()
    for prompt in ("a", "a b c d"):
        try:
            encoded = pipe.encode_prompt(prompt=[prompt])
        except (TypeError, ValueError, AttributeError):
            return False
        first = encoded[0] if isinstance(encoded, tuple) else encoded
        lengths.add(tuple(getattr(first, "shape", (len(lengths),))))
    return len(lengths) == 1
