"""A second-order multistep solver that takes the steps of the pipeline's scheduler, for as long as the handle lives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..ranges import one_of
from . import METHODS, Method

if TYPE_CHECKING:
    from ..part import Part, Shared


@METHODS.register("solver")
@dataclass(frozen=True, kw_only=True, slots=True)
class Solver(Method):
    """Lets a second-order multistep solver that diffusers holds take the steps of the pipeline's scheduler.

    The scheduler stays, and with it exactly its noise levels, however they are given (custom sigmas, mu, shifts,
    Karras), and everything else that a pipeline asks of it. The number of steps stays yours too: pass fewer to the
    pipeline to spend the higher order on speed. Composes with the forecasting methods, which then forecast what this
    solver asks for.

    Source: DPM-Solver++ (Lu et al., 2022, arXiv:2211.01095) and UniPC (Zhao et al., 2023, arXiv:2302.04867), as
    implemented in diffusers, on latents brought to a rectified flow.

    Raises: ConfigError for an unknown name; ConflictError at `accelerate` where nothing can step in the scheduler's
        place.
    """

    name: ClassVar[str] = "solver"
    place: ClassVar[str] = "solver"

    solver: str = "auto"
    """"auto", "dpm++" or "unipc". auto takes DPM-Solver++ (2M)."""

    def __post_init__(self) -> None:
        one_of("solver", self.solver, ("auto", "dpm++", "unipc"))

    def part(self, shared: Shared) -> Part:
        from ..stepping import Stepping

        return Stepping("unipc" if self.solver == "unipc" else "dpm++", shared)
