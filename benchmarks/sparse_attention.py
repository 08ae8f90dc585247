"""Sparse attention beside fewer steps and scheduled forecasts on the pocket `wan-long`, at the time that each takes.

    make bench-sparse-attention   # or: python benchmarks/sparse_attention.py [--prompts COUNT] [--at-most COUNT]

Densities are calibrated first, on calibration prompts. Then every held-out prompt is made plainly and in every other
way, one after the other in one process on one thread; time is that of the process, so that others count for little.
At last every prompt's converged clip is made, and all are held against it, too. What was measured is kept way by way in
benchmarks/results/sparse_attention.json, and the clips in out/sparse_attention, so that a run that was stopped goes on;
a clip that was lost is made again where it is needed, and has to be what it was. --at-most bounds how many prompts one
run adds. Writes docs/results_sparse_attention.md.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from benchmarks.by_prompt import asked, known
from benchmarks.sparse_attention_page import ALONE, CONVERGED, PAGE, POCKET, RESULT, ROOT, SAVES, STEPS, page
from outpace.accel import AdaSpa, Method, ScheduledTaylor, Solver, StaticSparsity, accelerate
from outpace.accel.attention.redirect import Attended
from outpace.accel.calibration.attention import AttentionCalibration
from outpace.accel.patterns import PATTERNS
from outpace.evaluation.atomic import write_json
from outpace.evaluation.environment import environment
from outpace.files import write_text
from outpace.pipelines import POCKETS, load_pocket

CLIPS = ROOT / "out" / "sparse_attention"
PROMPTS = 16
TOKENS = 4352
"""Of its attention."""
SAME = 0.01
"""dB that a clip may be off when it is made again."""
CALIBRATION_PROMPTS, FIRST_SEED = 2, 500

Way = tuple[int, tuple[Method, ...]]
"""Steps, and the methods."""


def calibrate(pipe: Any, prompts: Sequence[str], saves: float, call: Mapping[str, Any]) -> dict[str, Any]:
    """The method that is calibrated to leave out a share of attention, and everything that was tried to find it."""
    calibration = AttentionCalibration(call={**call, "num_inference_steps": STEPS})
    begin = time.process_time()
    bench = calibration.bench(pipe, prompts)
    method = bench.saving(saves)
    tried = [one.to_dict() | {"psnr": psnr, "saved": saved} for one, (psnr, saved) in bench.tried.items()]
    alone = [
        {"first": one[0], "last": one[1], "psnr": psnr} for one, psnr in zip(bench.table.bins, bench.alone, strict=True)
    ]
    found = {"prompts": list(prompts), "method": method.to_dict(), "tried": tried[len(alone) :], "alone": alone}
    return found | {"levels": bench.table.levels, "runs": bench.runs, "seconds": time.process_time() - begin}


def ways(calibrations: dict[str, Any]) -> dict[str, Way]:
    """Every way to make a clip, in the order of what they tell, for a run that is stopped.

    Args:
        calibrations: what `calibrate` found, by the share of attention that is left out.
    """
    blocks: dict[str, Any] = {"block": (128, 64), "slack": 0.0, "min_gain": 0.0}
    much, little = (Method.from_dict(calibrations[f"{saves:g}"]["method"]) for saves in SAVES)
    later = {recall: AdaSpa(recall=recall, searches=(0.2,), **blocks) for recall in (0.99, 0.995)}
    scheduled = {f"{STEPS / computed:.3g}": ScheduledTaylor(speedup=STEPS / computed) for computed in (9, 8, 7, 6, 5)}
    every: dict[str, tuple[Method, ...]] = {
        "plain": (),
        f"scheduled 1.33 with AdaSpa, calibrated, saves {SAVES[1]:g}": (scheduled["1.33"], little),
        "scheduled 1.33 with AdaSpa, calibrated": (scheduled["1.33"], much),
        "scheduled 1.71 with AdaSpa, calibrated": (scheduled["1.71"], much),
        "scheduled 1.33 with AdaSpa, recall 0.99": (scheduled["1.33"], later[0.99]),
        "scheduled 1.71 with AdaSpa, recall 0.99": (scheduled["1.71"], later[0.99]),
        "scheduled 1.33 with AdaSpa, recall 0.995": (scheduled["1.33"], later[0.995]),
        **{f"scheduled {speedup}": (scheduled[speedup],) for speedup in ("1.5", "2", "2.4")},
    }
    found: dict[str, Way] = {name: (STEPS, methods) for name, methods in every.items()}
    found |= {f"{fewer} steps": (fewer, ()) for fewer in (8, 6, 5, 10)}
    density = 0.5
    alone: dict[str, Method] = {
        ALONE: AdaSpa(recall=0.99, searches=(0.1,), **blocks),
        f"AdaSpa, calibrated, saves {SAVES[1]:g}": little,
        "AdaSpa, calibrated": much,
        "AdaSpa, recall 0.99, searched at 0.2": later[0.99],
        "AdaSpa, the paper's rule, sparsity 0.5": replace(AdaSpa.paper(0.5), block=(128, 64)),
        **{
            f"{pattern.label}, density {density:g}": StaticSparsity(
                pattern=name, density=density, block=(128, 64), min_gain=0.0
            )
            for name, pattern in PATTERNS.items()
        },
    }
    return found | {name: (STEPS, (method,)) for name, method in alone.items()}


class Attending(TorchFunctionMode):
    """Adds up the process time of self-attention while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        attended = Attended(*args, **kwargs)
        begin = time.process_time()
        out = func(*args, **kwargs)
        self.seconds += (time.process_time() - begin) * (attended.query.shape[-2] == attended.key.shape[-2])
        return out


def attention_share(pipe: Any, prompt: str, call: Mapping[str, Any]) -> float:
    """Share of self-attention in the time of a plain step: that of a run of three steps less that of one of one."""
    found = []
    for steps in (1, 3):
        with Attending() as attending:
            _, facts = clip(pipe, prompt, FIRST_SEED, (steps, ()), call)
        found.append((attending.seconds, facts["seconds"]))
    return (found[1][0] - found[0][0]) / (found[1][1] - found[0][1])


def clip(pipe: Any, prompt: str, seed: int, way: Way, call: Mapping[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
    """One clip, the process time that it took, and what attention did."""
    steps, methods = way
    given = {**call, "num_inference_steps": steps, "output_type": "np"}

    def make() -> np.ndarray:
        return np.asarray(pipe(prompt, generator=torch.Generator().manual_seed(seed), **given).frames[0])

    begin = time.process_time()
    if not methods:
        return make(), {"seconds": time.process_time() - begin}
    with accelerate(pipe, *methods) as run:
        begin = time.process_time()
        made = make()
        facts: dict[str, Any] = {"seconds": time.process_time() - begin}
    record = run.trace.attention
    if record is not None:
        totals = record.totals()
        facts |= {name: totals[name] for name in ("work", "density", "recall")} | {"timed": dict(record.seconds)}
    return made, facts


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((one.astype(np.float64) - other) ** 2)))


class Clips:
    """What was made, by prompt and way, on disk: so that it can be held against what is made later."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _file(self, seed: int, name: str) -> Path:
        return self.folder / f"{seed} {name}.npy"

    def keep(self, seed: int, name: str, made: np.ndarray) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        np.save(self._file(seed, name), made.astype(np.float32))

    def of(self, seed: int, name: str) -> np.ndarray | None:
        """A clip, or None where it was not kept."""
        file = self._file(seed, name)
        return np.load(file) if file.exists() else None


def measure(
    pipe: Any,
    prompt: str,
    seed: int,
    every: dict[str, Way],
    call: Mapping[str, Any],
    found: dict[str, Any],
    clips: Clips,
    keep: Callable[[], None],
) -> None:
    """What is missing in `found` on one prompt, against the plain clip and its time; `keep` is called after each."""
    plain, seconds = clip(pipe, prompt, seed, every["plain"], call)
    clips.keep(seed, "plain", plain)
    found.setdefault("plain", seconds)
    for name, way in every.items():
        if name in found:
            continue
        made, facts = clip(pipe, prompt, seed, way, call)
        clips.keep(seed, name, made)
        found[name] = facts | {"psnr": psnr(made, plain), "speedup": seconds["seconds"] / facts["seconds"]}
        print(f"  {name}: {found[name]['speedup']:.2f}x, {found[name]['psnr']:.2f} dB", file=sys.stderr, flush=True)
        keep()


def again(
    pipe: Any, prompt: str, seed: int, name: str, way: Way, call: Mapping[str, Any], found: dict[str, Any], clips: Clips
) -> np.ndarray:
    """A clip that was measured before, as it was kept, or made again where it was lost.

    Raises: RuntimeError where it comes out differently.
    """
    kept, plain = clips.of(seed, name), clips.of(seed, "plain")
    if kept is not None:
        return kept
    made, _ = clip(pipe, prompt, seed, way, call)
    if name != "plain" and plain is not None and abs(psnr(made, plain) - found[name]["psnr"]) > SAME:
        raise RuntimeError(
            f"{name} of {prompt!r} was {found[name]['psnr']:.3f} dB from the plain clip and is "
            f"{psnr(made, plain):.3f} now: measure this prompt anew"
        )
    clips.keep(seed, name, made)
    return made


def converge(
    pipe: Any,
    prompt: str,
    seed: int,
    every: dict[str, Way],
    call: Mapping[str, Any],
    found: dict[str, Any],
    clips: Clips,
) -> bool:
    """Hold what was made of one prompt against its converged clip; False where all of it was."""
    missing = [name for name in every if name in found and "converged" not in found[name]]
    if not missing:
        return False
    again(pipe, prompt, seed, "plain", every["plain"], call, found, clips)
    converged = clips.of(seed, "converged")
    if converged is None:
        converged, _ = clip(pipe, prompt, seed, (CONVERGED, (Solver(),)), call)
        clips.keep(seed, "converged", converged)
    for name in missing:
        found[name]["converged"] = psnr(again(pipe, prompt, seed, name, every[name], call, found, clips), converged)
    return True


def main() -> None:
    options = asked(__doc__.splitlines()[0], prompts=PROMPTS, result=RESULT, page=PAGE)
    torch.set_num_threads(1)
    report, clips = known(options.result), Clips(CLIPS)
    pocket, pipe = POCKETS[POCKET], load_pocket(POCKET)
    pipe.set_progress_bar_config(disable=True)
    asked_for = list(enumerate(pocket.prompts(options.prompts, "held_out")))

    def keep() -> None:
        report.update(command="python benchmarks/sparse_attention.py", environment=environment())
        write_json(options.result, report)

    calibrations = report.setdefault("calibrations", {})
    for saves in SAVES:
        if f"{saves:g}" not in calibrations:
            prompts = pocket.prompts(CALIBRATION_PROMPTS, "calibration")
            calibrations[f"{saves:g}"] = calibrate(pipe, prompts, saves, pocket.call)
            keep()
    if "attention_share" not in report:
        share = attention_share(pipe, asked_for[0][1], pocket.call)
        report |= {"attention_share": share, "tokens": TOKENS}
        keep()
    every, added = ways(calibrations), 0
    for place, prompt in asked_for:
        made = report["prompts"].setdefault(prompt, {})
        if added >= options.at_most or every.keys() <= made.keys():
            continue
        print(prompt, file=sys.stderr, flush=True)
        measure(pipe, prompt, FIRST_SEED + place, every, pocket.call, made, clips, keep)
        added += 1
    for place, prompt in asked_for if added < options.at_most else ():
        made = report["prompts"][prompt]
        if converge(pipe, prompt, FIRST_SEED + place, every, pocket.call, made, clips):
            print(f"{prompt}: plain {made['plain']['converged']:.2f} dB", file=sys.stderr, flush=True)
            keep()
    write_text(options.page, page(report))


if __name__ == "__main__":
    main()
