"""What a pocket pipeline is, and all of them by name; recipes.py registers ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ...registry import Registry

Split = Literal["held_out", "train", "calibration"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pocket:
    """One small trained pipeline. Its functions import what they need when they are called."""

    name: str
    summary: str
    """What it makes, in one line."""
    kind: Literal["image", "video"]
    prompts: Callable[[int, Split], list[Any]]
    """`prompts(n, split)` gives n prompts, the same at every call. Figures are read on "held_out", settings tuned on
    "calibration"."""
    check: Callable[[Sequence[Any], Sequence[Any]], list[dict[str, float]]]
    """`check(media, prompts)` reads each picture (HWC) or clip (THWC), floats in 0..1: shares of the prompt obeyed."""
    train: Callable[..., tuple[Any, dict[str, Any]]]
    """`train(folder, budget=..., device=..., progress=...)` gives the pipeline and the facts for its card."""
    call: Mapping[str, Any] = field(default_factory=dict)
    """Arguments that a call of the pipeline needs: the size it was trained at, its guidance."""
    prompt_argument: str = "prompt"
    """What the pipeline calls its prompts."""
    example: str = ""
    """The first held-out prompt in words; written down, so that listing pockets draws nothing."""
    steps: int = 50
    """Denoising steps unless told otherwise."""
    given: Callable[[Sequence[Any], Sequence[int]], dict[str, Any]] | None = None
    """`given(prompts, seeds)`: what else a call needs for them, such as the clips that a task of video starts from."""
    forecasts: bool = True
    """False where there are no transformer blocks that a method could leave out; it is then generated plainly."""
    features: Callable[[Sequence[Any]], Any] | None = None
    """`features(media)` gives [R, D] features of a trained reader, for distances between sets; None where there is no
    reader."""
    bar: Mapping[str, float] = field(default_factory=dict)
    """The least mean of a check on held-out prompts with which it may be shipped."""
    data: str = ""
    """What it was trained on and whose that is, for its card."""


POCKETS: Registry[Pocket] = Registry("pocket")
