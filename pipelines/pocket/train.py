"""Make a pocket again from nothing: one process or several, resumed after a kill, saved and measured at the end."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ...files import write_text, writing


def train_pocket(
    name: str,
    out: str | Path,
    *,
    processes: int = 1,
    device: str = "cpu",
    resume: bool = True,
    budget: float | None = None,
    progress: bool = True,
) -> Path:
    """Train the pocket `name`; `out` becomes an ordinary diffusers directory with a model card.

    Args:
        name: of a pocket, or of a sister ("flux-sister").
        out: checkpoints lie in `out/checkpoints` and may be removed when it is done.
        processes: on a CPU, through gloo; each takes its share of every batch.
        device: "cpu", or one GPU as torch names it.
        resume: go on from the checkpoints in `out`; False forgets them.
        budget: multiplies the recipe's steps; 0.01 is a rehearsal.

    Raises: UnknownNameError for no pocket of ours; ConfigError for processes on a GPU, or where `out` holds a run with
        other settings.
    """
    from .sisters import trained

    trained(name)
    if processes < 1 or (processes > 1 and device != "cpu"):
        raise ConfigError(f"{processes} processes on '{device}': several train together on a cpu only; a GPU takes 1")
    folder = Path(out).expanduser()
    checkpoints = folder / "checkpoints"
    if not resume:
        shutil.rmtree(checkpoints, ignore_errors=True)
    checkpoints.mkdir(parents=True, exist_ok=True)
    (checkpoints / "rendezvous").unlink(missing_ok=True)
    job = {"name": name, "folder": str(folder), "processes": processes, "device": device, "budget": budget}
    others = [_start_process(job, rank) for rank in range(1, processes)]
    try:
        _train(job, rank=0, progress=progress)
    finally:
        for other in others:
            other.terminate()
            other.wait()
    return folder


def _start_process(job: dict[str, Any], rank: int) -> subprocess.Popen[bytes]:
    # A process of its own rather than a fork or a spawn: neither copies threads nor imports the caller's script again.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    command = "import sys; from outpace.pipelines.pocket.train import _follow; _follow(sys.argv[1], int(sys.argv[2]))"
    return subprocess.Popen([sys.executable, "-c", command, json.dumps(job), str(rank)], env=environment)


def _follow(job: str, rank: int) -> None:
    _train(json.loads(job), rank=rank, progress=False)


def _train(job: dict[str, Any], *, rank: int, progress: bool) -> None:
    import torch
    import torch.distributed as dist

    from .cards import check_pocket, write_card
    from .sisters import trained
    from .store import save_pipeline
    from .training import join_processes

    folder, world = Path(job["folder"]), job["processes"]
    threads = torch.get_num_threads()
    if world > 1:
        torch.set_num_threads(1)
    join_processes(rank, world, folder / "checkpoints")
    try:
        pocket = trained(job["name"])
        pipe, facts = pocket.train(
            folder / "checkpoints", budget=job["budget"], device=job["device"], progress=progress
        )
    finally:
        if world > 1:
            dist.destroy_process_group()
            torch.set_num_threads(threads)
    if rank:
        return
    with writing(folder):
        save_pipeline(pipe, folder)
    card = {"pocket": job["name"], "training": {**plain(facts), **surroundings(job)}}
    write_text(folder / "card.json", json.dumps(card, indent=1) + "\n")
    write_card(folder, check_pocket(job["name"], n=32, folder=folder, progress=progress))


def surroundings(job: dict[str, Any]) -> dict[str, Any]:
    """Where and how a run was trained, for its card."""
    import diffusers
    import torch

    if str(job["device"]).startswith("cuda"):
        hardware = torch.cuda.get_device_name(job["device"])
    else:
        hardware = f"{_processor()}, {job['processes']} of {os.cpu_count()} cores"
    return {
        "hardware": hardware,
        "processes": job["processes"],
        "budget": job["budget"],
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
    }


def plain(value: Any) -> Any:
    """`value` with dataclasses and paths turned into what JSON can hold."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    return value if isinstance(value, int | float | str | list | None) else str(value)


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
