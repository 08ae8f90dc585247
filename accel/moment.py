"""One denoiser call in time: plain data, shared by all that change a pipeline."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One denoiser call in time."""

    run: int
    step: int
    branch: str
    leader: bool
    """True for the first call of the step: it decides, the step's other branches follow."""
    timestep: float
    u: float
    """Noise level, 1 pure noise to 0 picture: sigma of a rectified flow, `diffusion_level` of a diffusion."""
    du: float
    """How far the solver moves in `u` with this call's output."""
    num_steps: int | None

    @property
    def weight(self) -> float:
        """How much an error of this call's output counts in the picture; adds up to about 1 over a run.

        The solver carries the error over `du`. What it still weighs at the end falls with the noise level at which it
        was made, because the steps that follow correct the more, the more noise they have to take away; that it falls
        like 1.2 - u was measured on the trained pocket pipelines (docs/how_it_works.md).
        """
        return self.du * (1.2 - self.u) / 0.7
