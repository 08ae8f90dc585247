"""The calls that a pipeline makes of its transformer, kept to ask the transformer about them again."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


def record_calls(transformer: nn.Module, run: Callable[[], Any], most: int = 32) -> list[dict[str, Any]]:
    """Arguments by name of at most `most` calls that `run` makes of `transformer`, spread evenly over all of them.

    Args:
        run: makes something with the pipeline; several prompts and all steps, for what matters differs among them.
    """
    names = list(inspect.signature(transformer.forward).parameters)
    kept: list[dict[str, Any]] = []
    seen, stride = 0, 1

    def note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal seen, stride
        if seen % stride == 0:
            kept.append(_copied({**dict(zip(names, args, strict=False)), **kwargs}))
            if len(kept) > most:  # nobody says how many will come: keep every second, and fewer from now on
                del kept[1::2]
                stride *= 2
        seen += 1

    hook = transformer.register_forward_pre_hook(note, with_kwargs=True)
    try:
        run()
    finally:
        hook.remove()
    return kept


def _copied(value: Any) -> Any:
    # Pipelines write into their tensors from step to step.
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return type(value)(_copied(item) for item in value) if type(value) in (list, tuple) else value
