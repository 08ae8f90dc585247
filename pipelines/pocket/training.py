"""One resumable training loop for every part of a pocket pipeline: autoencoder, text encoder, denoiser.

Muon on the matrices of the blocks and AdamW on the rest, warm-up, constant rate, linear cool-down over the last 35 %,
clipped gradients, an exponential moving average of the weights, bfloat16 autocast. A run that is killed goes on from
its newest checkpoint and ends with the weights of an uninterrupted one, because every step draws from its own seed.
"""

from __future__ import annotations

import ctypes
import json
import math
import pickle
import platform
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from tqdm import tqdm

from ...errors import ConfigError
from ...files import whole_file, write_text


@dataclass(frozen=True, kw_only=True, slots=True)
class FitSettings:
    """How long and how fast to train."""

    steps: int
    """Optimiser steps."""
    batch: int = 32
    """Samples a step, over all processes together."""
    parts: int = 1
    """Parts that a batch is computed in, one after the other, their gradients added up: saves memory. Processes share
    the parts, so as many parts draw the same samples however many processes there are."""
    rate: float = 2e-3
    """Peak learning rate of AdamW."""
    muon_rate: float = 0.0
    """Peak learning rate of Muon for the matrices that `fit` is given as `matrices`; 0 trains them with AdamW too."""
    weight_decay: float = 0.0
    warmup: int = 40
    """Steps over which the rate rises."""
    cooldown: float = 0.35
    """Last share of the run over which the rate falls to nothing."""
    average: float = 0.995
    """Decay of the moving average of the weights."""
    seed: int = 0
    autocast: bool = True
    """Compute in bfloat16 where torch's autocast does."""
    fused_attention: bool = False
    """Use torch's fused attention on a CPU too: slow backwards below some hundred tokens, saves memory above."""
    compiled: bool = False
    """Compile the repeated blocks while training, where torch finds a C++ compiler: half the time on a CPU with AMX."""
    checkpoint_seconds: float = 60.0
    """Time between checkpoints; what a kill can lose."""
    budget_seconds: float | None = None
    """CPU seconds of one process after which the cool-down is brought forward to end the run; None trains all steps."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FitResult:
    """What a run took and where it ended."""

    name: str
    steps: int
    samples: int
    cpu_seconds: float
    """Summed over the processes."""
    wall_seconds: float
    loss: float
    """Running mean at the end."""


def keep_freed_memory() -> bool:
    """Ask glibc to keep freed memory, which makes small-model training on CPU several times faster; False elsewhere.

    By default every large block goes back to the system when it is freed, and page faults then dominate.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    mmap_max, trim_threshold, top_pad = -4, -1, -2
    done = [libc.mallopt(mmap_max, 0), libc.mallopt(trim_threshold, 2**31 - 1), libc.mallopt(top_pad, 256 * 2**20)]
    return all(done)


def join_processes(rank: int, world: int, folder: Path) -> None:
    """Join the processes that train together, over gloo and a file in `folder`."""
    if world > 1 and not dist.is_initialized():
        folder.mkdir(parents=True, exist_ok=True)
        dist.init_process_group(
            "gloo", init_method=f"file://{(folder / 'rendezvous').resolve()}", rank=rank, world_size=world
        )


@contextmanager
def first_process_first() -> Iterator[None]:
    """The others enter when the first process is through, and find what it wrote."""
    waits = dist.is_initialized() and dist.get_rank() > 0
    if waits:
        dist.barrier()
    yield
    if dist.is_initialized() and not waits:
        dist.barrier()


def fit(
    name: str,
    module: nn.Module,
    loss_of: Callable[[torch.Generator, int], torch.Tensor],
    settings: FitSettings,
    folder: Path,
    *,
    matrices: Iterable[nn.Parameter] = (),
    parameters: Iterable[nn.Parameter] | None = None,
    progress: bool = True,
    stop_after: int | None = None,
    meant: str = "",
    told: Callable[[], dict[str, str]] | None = None,
) -> FitResult:
    """Train `module` in place until its average weights are final; they are in it when this returns.

    Args:
        name: names the progress bar and the files in `folder`.
        module: what is trained; its device decides where.
        loss_of: called as `loss_of(generator, batch)` under autocast; draws its data and noise from the generator,
            which is seeded by step and process, and returns the mean loss of `batch` samples.
        settings: how long and how fast.
        folder: checkpoints (`NAME.pt`) and the log (`NAME.json`) go here; an unfinished run there is continued, a
            finished one is loaded.
        matrices: parameters trained by Muon when `settings.muon_rate` > 0.
        parameters: what is trained at all; by default everything in `module` that requires gradients.
        stop_after: end early after so many steps of this call, as a kill would, with a checkpoint written.
        meant: what else a checkpoint has to agree on to be continued, such as the fingerprint of a teacher.
        told: gives what the progress bar shows beside the loss.

    Raises: ConfigError where `folder` holds a checkpoint of other settings or meant otherwise, or one that is damaged.
    """
    world = dist.get_world_size() if dist.is_initialized() else 1
    rank = dist.get_rank() if dist.is_initialized() else 0
    parts = max(settings.parts, world)
    if settings.batch % parts or parts % world:
        raise ConfigError(
            f"{world} processes cannot share a batch of {settings.batch}"
            + (f" in {parts} parts" if settings.parts > 1 else "")
            + " evenly; choose a divisor"
        )
    keep_freed_memory()
    compiled = settings.compiled and _compiles_here()
    if compiled:
        module.compile_repeated_blocks()
    folder.mkdir(parents=True, exist_ok=True)
    trained = [p for p in (module.parameters() if parameters is None else parameters) if p.requires_grad]
    chosen = {id(p) for p in matrices} if settings.muon_rate > 0 else set()
    muon = [p for p in trained if id(p) in chosen]
    rest = [p for p in trained if id(p) not in chosen]
    optimizers: list[tuple[torch.optim.Optimizer, float]] = [
        (
            torch.optim.AdamW(rest, lr=settings.rate, betas=(0.9, 0.95), weight_decay=settings.weight_decay),
            settings.rate,
        )
    ]
    if muon:
        optimizer = torch.optim.Muon(
            muon, lr=settings.muon_rate, weight_decay=0.01, momentum=0.95, adjust_lr_fn="match_rms_adamw"
        )
        optimizers.append((optimizer, settings.muon_rate))
    average = [p.detach().clone() for p in trained]
    state: dict[str, Any] = {"step": 0, "cpu": 0.0, "wall": 0.0, "loss": None, "done": 0.0, "log": []}
    path = folder / f"{name}.pt"
    identity = {k: v for k, v in asdict(settings).items() if k not in ("checkpoint_seconds", "budget_seconds")}
    if path.exists():
        saved = _read_checkpoint(path, trained[0].device)
        if saved["settings"] != identity:
            raise ConfigError(f"{path} holds a run with other settings; remove it, or train into another folder")
        if saved["meant"] != meant:
            raise ConfigError(
                f"{path} was trained towards something else ('{saved['meant']}', not '{meant}'); remove it, or train "
                "into another folder"
            )
        state = saved["state"]
        with torch.no_grad():
            for p, a, value, mean in zip(trained, average, saved["weights"], saved["average"], strict=True):
                p.copy_(value)
                a.copy_(mean)
        for (optimizer, _), held in zip(optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(held)

    def checkpoint() -> None:
        if rank:
            return
        held = {
            "settings": identity,
            "meant": meant,
            "state": state,
            "weights": [p.detach() for p in trained],
            "average": average,
            "optimizers": [o.state_dict() for o, _ in optimizers],
        }
        with whole_file(path) as part:
            torch.save(held, part)

    cpu_before, wall_before = state["cpu"], state["wall"]
    cpu, wall = time.process_time(), time.monotonic()
    saved_at, first = wall, state["step"]
    bar = tqdm(total=settings.steps, initial=first, desc=name, disable=not progress or rank > 0, mininterval=2.0)
    device = trained[0].device
    attention: Callable[[], Any] = nullcontext
    if device.type == "cpu" and not settings.fused_attention:
        attention = _WrittenOutAttention if compiled else lambda: sdpa_kernel(SDPBackend.MATH)
    while state["done"] < 1.0 and not (stop_after is not None and state["step"] - first >= stop_after):
        step = state["step"]
        state["cpu"], state["wall"] = cpu_before + time.process_time() - cpu, wall_before + time.monotonic() - wall
        done = step / settings.steps
        if settings.budget_seconds is not None:
            done = max(done, state["cpu"] / settings.budget_seconds)
        state["done"] = _agree(done, world)
        if state["done"] >= 1.0:
            break
        pace = min(1.0, (step + 1) / settings.warmup) * min(1.0, max(0.02, (1.0 - state["done"]) / settings.cooldown))
        for optimizer, rate in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * pace
            optimizer.zero_grad(set_to_none=True)
        value = 0.0
        for part in range(rank, parts, world):
            generator = torch.Generator().manual_seed((settings.seed * 1_000_003 + step) * 64 + part)
            context = torch.autocast(device.type, torch.bfloat16) if settings.autocast else nullcontext()
            with context, attention():
                loss = loss_of(generator, settings.batch // parts)
            share = world / parts
            (loss if share == 1.0 else loss * share).backward()
            value += float(loss.detach()) * share
        if world > 1:
            _average_gradients(trained, world)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        for optimizer, _ in optimizers:
            optimizer.step()
        with torch.no_grad():
            decay = min(settings.average, (1 + step) / (10 + step))
            torch._foreach_lerp_(average, list[torch.Tensor](trained), 1.0 - decay)
        if not math.isfinite(value):
            raise ConfigError(f"the loss of {name} is not finite at step {step}; lower its learning rate")
        state["loss"] = value if state["loss"] is None else 0.98 * state["loss"] + 0.02 * value
        state["step"] = step + 1
        bar.update()
        if state["step"] % 50 == 0:
            state["log"].append((state["step"], round(state["loss"], 5), round(state["cpu"], 1)))
            bar.set_postfix(
                loss=f"{state['loss']:.4g}",
                per_second=f"{state['step'] * settings.batch / max(state['wall'], 1e-9):.0f}",
                **(told() if told is not None else {}),
            )
        if time.monotonic() - saved_at > settings.checkpoint_seconds:
            checkpoint()
            saved_at = time.monotonic()
    bar.close()
    if compiled:
        for part in module.modules():
            part._compiled_call_impl = None
    checkpoint()
    result = FitResult(
        name=name,
        steps=state["step"],
        samples=state["step"] * settings.batch,
        cpu_seconds=round(state["cpu"] * world, 1),
        wall_seconds=round(state["wall"], 1),
        loss=state["loss"] if state["loss"] is not None else math.nan,
    )
    if rank == 0:
        summary = {"settings": asdict(settings), "result": asdict(result), "log": state["log"]}
        write_text(folder / f"{name}.json", json.dumps(summary, indent=1))
    with torch.no_grad():
        for p, a in zip(trained, average, strict=True):
            p.copy_(a)
    return result


class _WrittenOutAttention(TorchFunctionMode):
    """Attention as two matrix products and a softmax, which a compiler fuses with what is around it.

    torch's fused attention goes backwards through float32 on a CPU, and a compiled block does not heed `sdpa_kernel`.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        return _written_out(*args, **(kwargs or {}))


def _written_out(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    if attn_mask is not None or dropout_p or is_causal or enable_gqa:
        raise ConfigError("masked attention cannot be written out in a compiled run; set fused_attention=True")
    scores = (query * (scale or query.shape[-1] ** -0.5)) @ key.transpose(-1, -2)
    return scores.float().softmax(-1).to(value.dtype) @ value


def _compiles_here() -> bool:
    # Without a C++ compiler a run is slower, not impossible.
    try:
        torch.compile(torch.neg)(torch.ones(2))
    except Exception as error:
        tqdm.write(f"blocks are not compiled here, which takes about twice the time: {type(error).__name__}: {error}")
        return False
    return True


def average_weights(
    folder: Path, name: str, module: nn.Module, parameters: Iterable[nn.Parameter] | None = None
) -> int:
    """Put the average weights of the newest checkpoint of run `name` into `module`; returns its step."""
    saved = _read_checkpoint(folder / f"{name}.pt", torch.device("cpu"))
    trained = [p for p in (module.parameters() if parameters is None else parameters) if p.requires_grad]
    with torch.no_grad():
        for p, mean in zip(trained, saved["average"], strict=True):
            p.copy_(mean)
    return int(saved["state"]["step"])


def _read_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    try:
        saved = torch.load(path, map_location=device, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path} is no checkpoint that can be read; remove it to begin anew") from error
    if not isinstance(saved, dict) or not {"settings", "meant", "state", "weights", "average"} <= saved.keys():
        raise ConfigError(f"{path} is no checkpoint of this training; remove it, or train into another folder")
    return saved


def _agree(done: float, world: int) -> float:
    # The first process tells the others how far the run is, so that all stop at the same step.
    if world == 1:
        return done
    value = torch.tensor([done], dtype=torch.float64)
    dist.broadcast(value, 0)
    return float(value)


def _average_gradients(parameters: list[nn.Parameter], world: int) -> None:
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= world
    offset = 0
    for p, g in zip(parameters, gradients, strict=True):
        p.grad = flat[offset : offset + g.numel()].view_as(g).clone()
        offset += g.numel()
