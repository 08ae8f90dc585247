"""Distillation in stages: what is trained in each, towards what, in the resumable loop that trains the pockets.

Source: Dense2MoE (Zheng et al., ICCV 2025, arXiv:2510.09094), three stages and their losses.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...accel.experts import (
    block_outputs,
    conversion_of,
    feature_loss,
    find_experts,
    find_groups,
    group_ends,
    held_blocks,
    held_samples,
    kept_blocks,
    layers_with_experts,
    set_active,
    watch,
)
from ...accel.profile import weights_digest
from ...errors import ConfigError
from ...registry import Registry
from ..pocket.training import FitResult, FitSettings, fit
from .calls import TeacherCalls


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """What one stage of a distillation trains, and what it is held to beside the teacher's output."""

    summary: str
    trains: Literal["all", "routed", "groups"]
    """"routed": experts that are chosen, and their routers. "groups": blocks that are chosen, and their routers."""
    shared_only: bool = False
    """No expert is active but the shared one."""
    group_features: bool = False
    """Features are compared at the ends of groups only."""


STAGES: Registry[Stage] = Registry("stage")
STAGES.add("shared", Stage(summary="the shared experts alone learn to do without the others", trains="all",
                           shared_only=True))  # fmt: skip
STAGES.add("experts", Stage(summary="routed experts and routers are trained on frozen shared ones", trains="routed"))
STAGES.add("groups", Stage(summary="blocks of groups and their routers are trained", trains="groups",
                           group_features=True))  # fmt: skip
STAGES.add("joint", Stage(summary="everything is trained at once", trains="all"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Distillation:
    """How a student is trained."""

    stages: tuple[tuple[str, int], ...] = (("joint", 1000),)
    """Names of STAGES with their steps, in order."""
    batch: int = 32
    """Samples a step, over all processes together."""
    parts: int = 1
    """Parts that a batch is computed in (gradient accumulation); processes share them."""
    rate: float = 1e-3
    """Peak learning rate of AdamW."""
    feature_weight: float = 1.0
    """Of the block-feature loss."""
    balance_weight: float = 1e-2
    """Of the loss that keeps experts from being left out, relative to the distance of the outputs."""
    average: float = 0.995
    """Decay of the moving average of the weights, which is what is kept in the end."""
    bfloat16: bool = False
    """Compute in bfloat16 where torch's autocast does; weights stay as they are."""
    seed: int = 0
    """Of the order of samples."""
    checkpoint_seconds: float = 60.0
    """Time between checkpoints; what a kill can lose."""

    def __post_init__(self) -> None:
        if not self.stages:
            raise ConfigError("a distillation has at least one stage, such as joint:1000")
        for name, steps in self.stages:
            STAGES[name]
            if steps < 1:
                raise ConfigError(f"the stage '{name}' has at least one step, not {steps}")
        if self.batch < 1 or self.parts < 1 or self.batch % self.parts:
            raise ConfigError(f"a batch of {self.batch} samples cannot be computed in {self.parts} equal parts")


def distill(
    teacher: nn.Module,
    student: nn.Module,
    calls: TeacherCalls,
    settings: Distillation,
    folder: Path,
    *,
    progress: bool = True,
    stop_after: int | None = None,
) -> list[FitResult]:
    """Train `student` in place to give what `teacher` gives; a run in `folder` that was interrupted goes on.

    Under `accelerate launch`, or any other way of starting several torch processes, they share every batch.

    Args:
        teacher: the dense transformer; it stays as it is.
        student: a converted or pruned one, on the same device.
        calls: of the teacher, from `record_teacher`.
        folder: of the checkpoints.
        stop_after: end early after so many steps, as a kill would, with a checkpoint written.

    Raises: ConfigError for stages that the student has nothing for, or a checkpoint of another teacher, student or
        settings; UnsupportedModelError for a student of another kind than the teacher.
    """
    check_student(teacher, student, settings)
    meant, results = _identity(student, calls, settings), []
    for number, (name, steps) in enumerate(settings.stages):
        stage = STAGES[name]
        fitted = FitSettings(
            steps=steps,
            batch=settings.batch,
            parts=settings.parts,
            rate=settings.rate,
            warmup=min(40, max(1, steps // 10)),
            average=settings.average,
            seed=settings.seed + 7919 * number,
            autocast=settings.bfloat16,
            checkpoint_seconds=settings.checkpoint_seconds,
        )
        with _trained(student, stage) as parameters:
            objective = _Objective(teacher, student, calls, settings, stage)
            results.append(
                fit(
                    f"{number}-{name}",
                    student,
                    objective,
                    fitted,
                    folder,
                    parameters=parameters,
                    progress=progress,
                    stop_after=stop_after,
                    meant=meant,
                    told=objective.told,
                )
            )
        if results[-1].steps < steps:
            break
    return results


def check_student(teacher: Any, student: Any, settings: Distillation) -> None:
    """Fail now rather than after the teacher was recorded. Raises: as `distill`."""
    name = type(student).__name__
    if conversion_of(student) is None:
        raise ConfigError(f"{name} is dense, so there is nothing to distil; convert it first (outpace convert)")
    if conversion_of(teacher) is not None:
        raise ConfigError(f"the teacher, a {type(teacher).__name__}, is converted itself; give the dense model")
    ours, theirs = (
        {key: value for key, value in dict(model.config).items() if not key.startswith("_") and key != "conversion"}
        for model in (student, teacher)
    )
    if not isinstance(student, type(teacher)) or ours != theirs:
        what = next((key for key in theirs if ours.get(key) != theirs[key]), "its class")
        raise ConfigError(
            f"{type(teacher).__name__} is no teacher of this {name}, which was made from another model ({what} "
            "differs); name the dense pipeline that was converted"
        )
    for stage, _ in settings.stages:
        wanted = STAGES[stage]
        routed, either = find_experts(student), layers_with_experts(student)
        if wanted.trains == "routed" and either and not routed:
            raise ConfigError(
                f"the stage '{stage}' trains experts that tokens choose, and those of this {name} are chosen by the "
                "noise level; train them with joint"
            )
        if (wanted.trains == "routed" and not routed) or (wanted.shared_only and not either):
            raise ConfigError(f"the stage '{stage}' trains experts and {name} has none; leave it out")
        if wanted.trains == "groups" and not find_groups(student):
            raise ConfigError(f"the stage '{stage}' trains groups of blocks and {name} has none; leave it out")


class _Objective:
    """The loss of one stage, on samples that a generator draws."""

    def __init__(
        self, teacher: nn.Module, student: nn.Module, calls: TeacherCalls, settings: Distillation, stage: Stage
    ) -> None:
        self.teacher, self.student, self.calls, self.settings = teacher, student, calls, settings
        self.places = group_ends(student) if stage.group_features else held_blocks(student)
        self.last: dict[str, float] = {}
        self.load: list[float] = []

    def __call__(self, generator: torch.Generator, batch: int) -> Tensor:
        index = torch.randint(0, len(self.calls), (batch,), generator=generator)
        call, target = self.calls.take(index, next(self.student.parameters()).device)
        with watch(self.student) as routing, block_outputs(self.student) as given:
            output = self.student(**call)[0]
        distance = functional.mse_loss(output.float(), target.float())
        loss, self.last = distance, {"output": float(distance.detach())}
        if self.settings.feature_weight:
            with torch.no_grad(), block_outputs(self.teacher) as wanted:
                self.teacher(**call)
            stands_for = kept_blocks(self.student, len(wanted))
            pairs = []
            for place in self.places:
                rows = held_samples(self.student, place, len(given[place]))
                pair = (wanted[stands_for[place]], given[place])
                if rows != []:
                    pairs.append(pair if rows is None else (pair[0][rows], pair[1][rows]))
            features = feature_loss(distance, [one for one, _ in pairs], [one for _, one in pairs])
            loss = loss + self.settings.feature_weight * features
            self.last["features"] = float(features.detach())
        if routing.shares:
            # Blocks of a group are not meant to run equally often: some matter more to every sample.
            experts = find_experts(self.student).keys() & routing.shares.keys()
            if experts:
                balance = routing.balance_loss(experts)
                loss = loss + self.settings.balance_weight * distance.detach() * balance
                self.last["balance"] = float(balance.detach())
            self.load = [share for shares in routing.load().values() for share in shares]
        return loss

    def told(self) -> dict[str, str]:
        shown = {name: f"{value:.3g}" for name, value in self.last.items()}
        return {**shown, "load": f"{min(self.load):.2f}-{max(self.load):.2f}"} if self.load else shown


@contextmanager
def _trained(student: nn.Module, stage: Stage) -> Iterator[list[nn.Parameter]]:
    """The parameters that `stage` trains, the only ones that get gradients; experts are as it wants them meanwhile."""
    layers, groups = layers_with_experts(student).values(), find_groups(student)
    modules: Sequence[nn.Module] = {
        "all": [student],
        "routed": [part for layer in find_experts(student).values() for part in (layer.experts, layer.router)],
        "groups": [part for group in groups for part in (group.router, *group.members)],
    }[stage.trains]
    chosen = list({id(p): p for module in modules for p in module.parameters() if p.is_floating_point()}.values())
    before = {p: p.requires_grad for p in student.parameters()}
    active: list[Any] = [layer.active for layer in layers]
    student.requires_grad_(False)
    for parameter in chosen:
        parameter.requires_grad_(True)
    if stage.shared_only:
        set_active(student, 0)
    try:
        yield chosen
    finally:
        for parameter, wanted in before.items():
            parameter.requires_grad_(wanted)
            parameter.grad = None
        for layer, count in zip(layers, active, strict=True):
            layer.active = count


def _identity(student: Any, calls: TeacherCalls, settings: Distillation) -> str:
    told = [calls.fingerprint, type(student).__name__, dict(student.config)["conversion"], weights_digest(student)]
    told += [settings.feature_weight, settings.balance_weight, list(settings.stages)]
    return hashlib.sha256(json.dumps(told, default=str).encode()).hexdigest()[:16]
