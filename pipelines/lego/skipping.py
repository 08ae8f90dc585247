"""Which brick of a LEGO model is left out when, as the paper says it: in a share of the steps, late or early."""

from __future__ import annotations

import copy
from typing import Any

from ...accel.levels import noise_levels
from ...accel.methods.brick_skipping import BrickSkipping
from ...errors import ConfigError


def skip_brick(pipe: Any, share: float, *, steps: int = 50, brick: int | None = None) -> BrickSkipping:
    """A schedule that leaves out one brick of `pipe` in `share` of its steps, as noise levels, ready for `accelerate`.

    An image brick is left out last, when all that is left is detail; a smaller one first, when there is none yet.

    Source: Zheng et al. 2024, arXiv:2310.06389, section 3.4; `share` is its t_break.

    Args:
        pipe: a LegoPipeline, for its scheduler and its bricks.
        share: of the steps, 0 (never) to 1 (always).
        steps: at which the share is counted; the levels that come of it serve any number.
        brick: which one, counted from 0; None: the last of the stack, as in the paper.

    Raises: ConfigError for a share or a brick that there is not.

    >>> with accelerate(pipe, skip_brick(pipe, 0.4)):  # doctest: +SKIP
    ...     image = pipe([3]).images[0]
    """
    config = pipe.transformer.config
    sizes = config["brick_sizes"]
    chosen = len(sizes) - 1 if brick is None else brick
    if not 0 <= share <= 1:
        raise ConfigError(f"share must be a number from 0 to 1, not {share}")
    if not 0 <= chosen < len(sizes):
        raise ConfigError(f"no brick {chosen}; the model has bricks 0 to {len(sizes) - 1}")
    scheduler = copy.deepcopy(pipe.scheduler)
    scheduler.set_timesteps(steps)
    levels = noise_levels(scheduler)
    if levels is None:
        raise ConfigError(
            f"{type(scheduler).__name__} does not tell its noise levels; write BrickSkipping(schedule=...)"
        )
    levels = [min(level, 1.0) for level in levels[: len(scheduler.timesteps)]]
    without = round(share * len(levels))
    if without in (0, len(levels)):
        return BrickSkipping(schedule=str(chosen) if without else "", reuse=False)
    late = sizes[chosen] == config["sample_size"]
    before = len(levels) - without if late else without
    edge = (levels[before - 1] + levels[before]) / 2
    return BrickSkipping(schedule=f"{chosen}@0..{edge:.6f}" if late else f"{chosen}@{edge:.6f}..1", reuse=False)
