"""What a VDT is asked: which part of a clip is to be made and which is known. A mask is 1 where it is to be made.

Legend: B batch, C channels, T frames, Y X pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ...errors import ConfigError, MeasurementError
from ...registry import Registry

Shape = tuple[int, int, int]
"""Frames, rows and columns of a mask."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One way to ask."""

    summary: str
    draw: Callable[[Shape, torch.Generator], torch.Tensor]
    """`draw((T, Y, X), generator)` gives a boolean mask of that shape, never empty."""
    knows: bool = True
    """False where nothing of the clip is known."""


TASKS: Registry[Task] = Registry("video task")

COMPLETE_SHARE = 0.2
"""Share of training clips whose mask is drawn in space as well; the other tasks share the rest evenly."""


def draw_mask(task: str, shape: Shape, generator: torch.Generator, *, patch: int = 1) -> torch.Tensor:
    """A mask for `task`, (T, Y, X), 1 where the clip is to be made; whole patches are known or not.

    Raises: UnknownNameError for no task of ours; ConfigError for fewer than 2 frames, or frames that patches do not
        fill.
    """
    frames, height, width = shape
    if frames < 2 or height % patch or width % patch:
        raise ConfigError(
            f"no mask for {frames} frames of {height} x {width}: it takes 2 frames or more, sides in steps of {patch}"
        )
    mask = TASKS[task].draw((frames, height // patch, width // patch), generator)
    return mask.float().repeat_interleave(patch, 1).repeat_interleave(patch, 2)


def draw_masks(count: int, shape: Shape, generator: torch.Generator, *, patch: int = 1) -> torch.Tensor:
    """Masks of `count` clips, each of a task drawn for it as in training, (B, 1, T, Y, X)."""
    others = [name for name in TASKS if name != "complete"]
    chosen = [
        "complete"
        if torch.rand((), generator=generator) < COMPLETE_SHARE
        else others[int(torch.randint(len(others), (), generator=generator))]
        for _ in range(count)
    ]
    return torch.stack([draw_mask(name, shape, generator, patch=patch) for name in chosen])[:, None]


def compose(made: torch.Tensor, known: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """`known` bit for bit where the mask is 0, `made` where it is 1.

    Source: Lu et al. 2023, arXiv:2305.13311, equation 3, whose M is our 1 - mask.
    """
    return torch.where(mask.bool(), made, known)


def masked_error(seen: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean squared error of what was to be made, each clip alike however much of it that was.

    Shapes: (B, C, T, Y, X), mask (B, 1, T, Y, X).
    Raises: MeasurementError where a mask is empty.
    """
    size = mask.flatten(1).sum(1) * seen.shape[1]
    if not bool((size > 0).all()):
        raise MeasurementError("a mask is 0 everywhere: nothing is to be made, so there is no error to measure")
    return (((seen - target).square() * mask).flatten(1).sum(1) / size).mean()


def _frames(made: torch.Tensor, shape: Shape) -> torch.Tensor:
    return made[:, None, None].expand(shape)


def _everything(shape: Shape, _: torch.Generator) -> torch.Tensor:
    return torch.ones(shape, dtype=torch.bool)


def _later_half(shape: Shape, _: torch.Generator) -> torch.Tensor:
    return _frames(torch.arange(shape[0]) >= shape[0] // 2, shape)


def _earlier_half(shape: Shape, _: torch.Generator) -> torch.Tensor:
    return _frames(torch.arange(shape[0]) < (shape[0] + 1) // 2, shape)


def _between(shape: Shape, _: torch.Generator) -> torch.Tensor:
    # The last frame is known too, or the frames behind the last known one would be predicted rather than interpolated.
    step = 4 if shape[0] > 4 else 2
    made = torch.arange(shape[0]) % step != 0
    made[-1] = False
    if not made.any():
        made[-1] = True
    return _frames(made, shape)


def _one_known(shape: Shape, generator: torch.Generator) -> torch.Tensor:
    return _frames(torch.arange(shape[0]) != torch.randint(shape[0], (), generator=generator), shape)


def _any_frames(shape: Shape, generator: torch.Generator) -> torch.Tensor:
    made = torch.rand(shape[0], generator=generator) < 0.8
    one, other = torch.randperm(shape[0], generator=generator)[:2]
    made[one], made[other] = True, False
    return _frames(made, shape)


def _hole(shape: Shape, generator: torch.Generator) -> torch.Tensor:
    """Rectangles over half of the picture, in a run of frames (the block masks of Bao et al., "BEiT", 2021)."""

    def whole(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    frames, height, width = shape
    hole = torch.zeros(height, width, dtype=torch.bool)
    while hole.sum() < (height * width + 1) // 2:
        area = max(1, height * width // 16) * whole(1, 4)
        aspect = float(torch.empty(()).uniform_(-1.2, 1.2, generator=generator).exp())
        tall, wide = (
            max(1, min(n, round(side)))
            for n, side in ((height, (area * aspect) ** 0.5), (width, (area / aspect) ** 0.5))
        )
        top, left = whole(0, height - tall), whole(0, width - wide)
        hole[top : top + tall, left : left + wide] = True
    spare = min(3, (frames - 1) // 2)
    first, last = whole(0, spare), frames - whole(0, spare)
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[first:last] = hole
    return mask


TASKS.add("unconditional", Task(summary="a clip out of nothing", draw=_everything, knows=False))
TASKS.add("predict", Task(summary="the later half of the frames from the earlier half", draw=_later_half))
TASKS.add("backward", Task(summary="the earlier half of the frames from the later half", draw=_earlier_half))
TASKS.add("interpolate", Task(summary="all frames from every fourth and the last", draw=_between))
TASKS.add("animate", Task(summary="a clip from one of its frames", draw=_one_known))
TASKS.add("arbitrary", Task(summary="a clip from any few of its frames", draw=_any_frames))
TASKS.add("complete", Task(summary="a hole in a run of frames, half of the picture wide", draw=_hole))
