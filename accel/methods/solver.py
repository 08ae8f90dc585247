"""A second-order multistep solver in the place of the pipeline's own, for as long as the handle lives."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ...errors import ConflictError
from ..ranges import one_of
from . import METHODS, Method

if TYPE_CHECKING:
    from ..part import Part, Shared


@METHODS.register("solver")
@dataclass(frozen=True, kw_only=True, slots=True)
class Solver(Method):
    """Swaps the pipeline's scheduler for a second-order multistep one that diffusers holds, at the same noise levels.

    The number of steps stays yours: pass fewer to the pipeline to spend the higher order on speed. Composes with the
    forecasting methods, which then forecast what this solver asks for.

    Source: DPM-Solver++ (Lu et al., 2022, arXiv:2211.01095) and UniPC (Zhao et al., 2023, arXiv:2302.04867), as
    implemented in diffusers; on rectified flows with flow sigmas.

    Raises: ConfigError for an unknown name; ConflictError at `accelerate` where the scheduler cannot be replaced.
    """

    name: ClassVar[str] = "solver"
    place: ClassVar[str] = "solver"

    solver: str = "auto"
    """"auto", "dpm++" or "unipc". auto takes DPM-Solver++ (2M)."""

    def __post_init__(self) -> None:
        one_of("solver", self.solver, ("auto", "dpm++", "unipc"))

    def part(self, shared: Shared) -> Part:
        from ..scheduler_swap import SchedulerSwap

        return SchedulerSwap(self.scheduler, shared)

    def scheduler(self, current: Any) -> Any:
        """A new scheduler that integrates the same equation as `current` to second order."""
        from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler

        from ..clock import is_flow

        cls = UniPCMultistepScheduler if self.solver == "unipc" else DPMSolverMultistepScheduler
        config = dict(current.config)
        changes: dict[str, Any] = {"solver_order": 2, "algorithm_type": "dpmsolver++", "final_sigmas_type": "zero"}
        if self.solver == "unipc":
            changes = {"solver_order": 2, "final_sigmas_type": "zero"}
        if is_flow(current):
            if config.get("use_dynamic_shifting") and config.get("time_shift_type", "exponential") != "exponential":
                raise ConflictError(
                    f"{type(current).__name__} shifts its noise levels in a way the multistep solvers do not know; "
                    "keep the pipeline's own scheduler"
                )
            changes |= {
                "use_flow_sigmas": True,
                "prediction_type": "flow_prediction",
                "flow_shift": config.get("shift", config.get("flow_shift", 1.0)) or 1.0,
            }
        elif config.get("prediction_type", "epsilon") not in ("epsilon", "v_prediction", "sample"):
            raise ConflictError(
                f"the multistep solvers do not know prediction_type '{config['prediction_type']}' of "
                f"{type(current).__name__}; keep the pipeline's own scheduler"
            )
        accepted = inspect.signature(cls.__init__).parameters
        known = {k: v for k, v in config.items() if k in accepted}
        return cls.from_config(known, **changes)
