"""Distil a converted pipeline from its dense one, in one process or in those that `accelerate launch` started."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import InputError

if TYPE_CHECKING:
    from ..load import Loaded
    from .training import Distillation


def distill_pipeline(
    student: Loaded,
    teacher: Loaded,
    prompts: Sequence[Any],
    arguments: Mapping[str, Any],
    settings: Distillation,
    folder: Path,
    *,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """Train the transformer of `student` in place; what is known about the training afterwards.

    Args:
        prompts: that the teacher's pipeline is recorded on, with `arguments` of its call.
        folder: of the recorded calls and the checkpoints; an interrupted run there goes on.
        seed: of the noise that the teacher is recorded on.

    Raises: as `record_teacher` and `distill`; before anything is computed where student and teacher do not fit.
    """
    from ..pocket.training import first_process_first
    from .calls import only_transformer, record_teacher
    from .training import check_student, distill

    dense, converted = only_transformer(teacher), only_transformer(student)
    check_student(dense, converted, settings)
    with processes(str(next(converted.parameters()).device)):
        with first_process_first():
            calls = record_teacher(teacher, prompts, arguments, seed=seed, folder=folder, progress=progress)
        results = distill(dense, converted, calls, settings, folder, progress=progress)
    return {
        "stages": [asdict(result) for result in results],
        "samples": len(calls),
        "prompts": len(prompts),
        "settings": asdict(settings),
        "teacher": calls.fingerprint,
    }


def teacher_of(student: Loaded) -> str:
    """The pipeline that a converted one was made from, as its card says. Raises: InputError where it does not."""
    path = Path(student.source.name).expanduser() / "card.json"
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        card = {}
    name = card.get("from") if isinstance(card, dict) else None
    if not isinstance(name, str):
        raise InputError(f"{path} does not say what '{student.source.name}' was made from; name it with --teacher")
    return name


def is_first_process() -> bool:
    """False in all processes of `accelerate launch` but one, which alone writes and speaks."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def processes(device: str) -> Iterator[None]:
    """Join the processes that accelerate or torchrun started; nothing where there is one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    import torch.distributed as dist
    from accelerate import PartialState

    PartialState(cpu=device == "cpu")
    try:
        yield
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
