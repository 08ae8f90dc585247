"""How should an error of a forecast be weighed by the noise level it is made at? Four weights, tried on every pocket.

    python benchmarks/error_weight.py [PIPELINE ...]

Calibration prompts (none of those that figures are read on), 50 steps, `GatedTaylor(gate="plan")` at several
thresholds; the table says what PSNR against the plain pipeline each weight reaches at 2.5x and 3x fewer computed
blocks. `accel.moment.Moment.weight` uses 1.2 - u, chosen from a smaller trial of these; where the committed table shows
1 - u ahead of it, that is the next thing to try, on short schedules too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import torch

import outpace
from outpace.accel.moment import Moment
from outpace.pipelines.pocket.recipes import POCKETS

PROMPTS, STEPS = 16, 50
THRESHOLDS = (0.03, 0.06, 0.1, 0.16, 0.25)
FACTORS: dict[str, Callable[[float], float]] = {
    "u + 0.2 (early errors count more)": lambda u: (u + 0.2) / 0.7,
    "1 (all alike)": lambda u: 1.0,
    "1.2 - u (early errors fade)": lambda u: (1.2 - u) / 0.7,
    "1 - u": lambda u: (1.0 - u) / 0.5,
}


def pictures(pipe: object, pocket: object, prompts: list[object]) -> np.ndarray:
    generators = [torch.Generator().manual_seed(i) for i in range(len(prompts))]
    made = pipe(prompts, num_inference_steps=STEPS, generator=generators, output_type="np", **pocket.call)  # type: ignore[operator, attr-defined]
    return np.asarray(made.images if hasattr(made, "images") else made.frames)


def psnr(made: np.ndarray, plain: np.ndarray) -> float:
    errors = ((made - plain) ** 2).reshape(len(made), -1).mean(1)
    return float(np.mean(np.minimum(100.0, -10 * np.log10(np.maximum(errors, 1e-12)))))


def main() -> None:
    torch.set_num_threads(1)
    for name in sys.argv[1:] or ["dit", "flux", "wan"]:
        pocket, pipe = POCKETS[name], outpace.load_pocket(name)
        pipe.set_progress_bar_config(disable=True)
        prompts = pocket.prompts(PROMPTS, "calibration")
        plain = pictures(pipe, pocket, prompts)
        print(f"\n{name}, {PROMPTS} calibration prompts, {STEPS} steps, torch {torch.__version__} on CPU\n")
        print("| weight of an error at noise level u | PSNR at 2.5x | PSNR at 3x |\n| --- | ---: | ---: |")
        for label, factor in FACTORS.items():
            Moment.weight = property(lambda moment, factor=factor: moment.du * factor(moment.u))  # type: ignore[method-assign, assignment]
            points = []
            for threshold in THRESHOLDS:
                with outpace.accelerate(pipe, outpace.GatedTaylor(threshold=threshold)) as run:
                    made = pictures(pipe, pocket, prompts)
                points.append((run.trace.totals()["predicted_speedup"], psnr(made, plain)))
            speeds, levels = zip(*sorted(points), strict=True)
            reached = [
                f"{np.interp(np.log(at), np.log(speeds), levels):.1f}"
                if speeds[0] <= at <= speeds[-1]
                else "not reached"
                for at in (2.5, 3.0)
            ]
            print(f"| {label} | {' | '.join(reached)} |", flush=True)


if __name__ == "__main__":
    main()
