"""What a study is handed: requests, and contenders that answer them. Nothing here knows how a picture is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..registry import Registry


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """One kind of contender, as reports speak of it."""

    label: str
    """The kind in words for people: "fewer steps"."""

    ours: bool = False
    """True for what this library proposes; its losses against every other kind are marked."""

    likened: bool = True
    """False where its pictures are its own, so that a distance to a reference's picture would say nothing."""


KINDS: Registry[Kind] = Registry("kind of contender")
KINDS.add("plain", Kind(label="plain pipeline"))
KINDS.add("converged", Kind(label="converged solution"))
KINDS.add("scheduled", Kind(label="scheduled forecast", ours=True))
KINDS.add("scheduled-calibrated", Kind(label="scheduled forecast, calibrated", ours=True))
KINDS.add("scheduled+solver", Kind(label="scheduled forecast on a second-order solver", ours=True))
KINDS.add("gated", Kind(label="gated forecast", ours=True))
KINDS.add("gated+solver", Kind(label="gated forecast on a second-order solver", ours=True))
KINDS.add("sparse", Kind(label="sparse attention", ours=True))
KINDS.add("scheduled+sparse", Kind(label="scheduled forecast with sparse attention", ours=True))
KINDS.add("gated+sparse", Kind(label="gated forecast with sparse attention", ours=True))
KINDS.add("bricks", Kind(label="bricks left out by a calibrated schedule", ours=True))
KINDS.add("bricks-rival", Kind(label="bricks left out evenly or at random"))
KINDS.add("sparse-static", Kind(label="sparse attention by a static pattern"))
KINDS.add("combination", Kind(label="combination of parts", ours=True))
KINDS.add("converted", Kind(label="converted model", ours=True))
KINDS.add("interval", Kind(label="fixed-interval forecast"))
KINDS.add("fewer-steps", Kind(label="fewer steps"))
KINDS.add("solver", Kind(label="second-order solver, fewer steps"))
KINDS.add("peer", Kind(label="peer"))
KINDS.add("checkpoint", Kind(label="another checkpoint", likened=False))


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One picture or clip to make. Every contender gets the same requests, so every comparison is paired."""

    index: int
    """Place in the study, from 0."""

    prompt: Any
    """What the pipeline is asked for: a caption, or a class number. Must survive JSON."""

    seed: int
    """Seed of this request's own starting noise; no batch mate shares it."""


@dataclass(kw_only=True, slots=True)
class Result:
    """What a contender made for one request.

    Shapes: H height, W width, C colours, T frames.
    """

    media: np.ndarray
    """The picture [H, W, C] or clip [T, H, W, C], float32 in 0..1."""

    latents: np.ndarray | None
    """What was handed to the decoder, or None where the pipeline has none."""

    blocks: float
    """Transformer blocks computed for this request, over all steps and guidance branches."""

    trace: dict[str, Any] | None = None
    """Decisions for this request alone: {"family", "blocks", "calls": [{"step", "branch", "sigma", "timestep",
    "computed", "reason", "error", "order"}], "warnings", "attention": what sparse attention did, see `attention`}, or
    None where nothing decides."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Contender:
    """One way to answer requests: a method with its settings, or a baseline.

    Raises: ConfigError for a kind that is not registered, or a batch below 1.
    """

    name: str
    """Unique, short, fit for a file name: "gated-0.10"."""

    label: str
    """The same for people: "gated, threshold 0.10"."""

    kind: str
    """A name in KINDS."""

    generate: Callable[[list[Request]], list[Result]]
    """Answers requests in order. May raise; the study then reports the contender with its error."""

    steps: int
    """Steps of the solver."""

    timed: Callable[[list[Request]], object] | None = None
    """The same work with nothing counted or kept, for the clock. None: `generate` itself is timed."""

    settings: dict[str, Any] = field(default_factory=dict)
    """What it was built with, for the report and for telling whether kept results still apply."""

    curve: str = ""
    """Points of one curve differ in one setting only, and may be interpolated. Empty: the kind."""

    shown: bool = False
    """Timed, and shown among the pictures, whatever its speed-up: somebody asked for this very one."""

    batch: int = 64
    """Most requests it may be given at once; 1 where its decisions depend on batch mates."""

    def run_timed(self, requests: list[Request]) -> None:
        """Answer for the clock, in as many calls as `batch` asks for."""
        run = self.timed or self.generate
        for start in range(0, len(requests), self.batch):
            run(requests[start : start + self.batch])

    def __post_init__(self) -> None:
        KINDS[self.kind]
        if self.batch < 1:
            raise ConfigError(f"contender '{self.name}': batch is {self.batch}; it must be at least 1")
        if not self.name or set(self.name) & set('/\\:*?"<>| '):
            raise ConfigError(f"contender name '{self.name}' is no file name; use letters, digits, '-', '.', '+', '@'")
        if not self.curve:
            object.__setattr__(self, "curve", self.kind)
