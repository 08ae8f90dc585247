"""A toy denoiser of 40 numbers: a smooth flow from noise to a striped picture, with a first block to gate on.

It is small enough to run a whole study in a second, and curved enough that methods differ as they do on real models.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from outpace.evaluation import Contender, Request, Result, Study

SIDE = 16
BLOCKS = 20
RNG = np.random.default_rng(7)
FIRST = RNG.normal(size=(48, 48)) / 7
LAST = RNG.normal(size=(48, 48)) / 7
PAINT = RNG.normal(size=(48, SIDE * SIDE * 3)) / 5


def first_block(x: np.ndarray, sigma: float, prompt: int) -> np.ndarray:
    return np.tanh(x @ FIRST + np.sin(3 * sigma + prompt))


def velocity(x: np.ndarray, first: np.ndarray, sigma: float) -> np.ndarray:
    return x - 2.0 * np.tanh(first @ LAST * (1 + sigma) + np.cos(5 * sigma))


def taylor(known: list[tuple[float, np.ndarray]], sigma: float) -> np.ndarray:
    (s0, y0), (s1, y1) = known[-2:]
    return y1 + (y1 - y0) * (sigma - s1) / (s1 - s0)


def toy_run(request: Request, steps: int, *, threshold: float = 0.0, interval: int = 1, second: bool = False) -> Result:
    """Integrate from noise; skip a step where the gate allows it, or where the fixed interval says so."""
    x = np.random.default_rng(request.seed).normal(size=48)
    sigmas = np.linspace(1.0, 0.0, steps + 1)
    firsts: list[tuple[float, np.ndarray]] = []
    lasts: list[tuple[float, np.ndarray]] = []
    blocks, spent, calls, before = 0, 0.0, [], None
    for step, (sigma, following) in enumerate(itertools.pairwise(sigmas)):
        first = first_block(x, sigma, request.prompt)
        error, reason = None, "warm-up" if step < 3 else "schedule"
        compute = step < 3 or interval <= 1 or (step - 2) % interval == 0
        if threshold and step >= 3:
            guess = taylor(firsts, sigma)
            error = float(np.abs(guess - first).sum() / np.abs(first).sum())
            spent += error * (sigma - following) * 50
            compute, reason = spent >= threshold, "gate"
        if compute:
            v, spent, blocks = velocity(x, first, sigma), 0.0, blocks + BLOCKS
            firsts.append((sigma, first))
            lasts.append((sigma, v))
        else:
            v, blocks = taylor(lasts, sigma), blocks + bool(threshold)
        calls.append(
            {
                "step": step,
                "branch": "cond",
                "sigma": float(sigma),
                "timestep": None,
                "computed": compute,
                "reason": reason,
                "error": error,
                "order": None if compute else 1,
            }
        )
        slope = 1.5 * v - 0.5 * before if second and before is not None else v
        before = v
        x = x + (following - sigma) * slope
    media = 1 / (1 + np.exp(-(x @ PAINT).reshape(SIDE, SIDE, 3)))
    trace = {"family": "toy", "blocks": BLOCKS, "calls": calls}
    return Result(media=media.astype(np.float32), latents=x.astype(np.float32), blocks=float(blocks), trace=trace)


def toy(name: str, kind: str, steps: int = 50, *, curve: str = "", batch: int = 64, **settings) -> Contender:
    def generate(requests: list[Request]) -> list[Result]:
        return [toy_run(r, steps, **settings) for r in requests]

    return Contender(
        name=name,
        label=name.replace("-", " "),
        kind=kind,
        curve=curve,
        steps=steps,
        batch=batch,
        settings=settings,
        generate=generate,
    )


def toy_contenders() -> list[Contender]:
    def broken(requests: list[Request]) -> list[Result]:
        raise ValueError("no such cache")

    return [
        toy("plain", "plain"),
        toy("converged", "converged", 150, second=True),
        *(toy(f"gated-{t}", "gated", curve="gated", threshold=t) for t in (0.02, 0.05, 0.1, 0.3)),
        *(
            toy(f"gated-solver-{t}", "gated+solver", curve="gated+solver", threshold=t, second=True)
            for t in (0.02, 0.05, 0.1, 0.3)
        ),
        *(toy(f"interval-{n}", "interval", curve="interval, order 1", interval=n) for n in (2, 3, 4, 5)),
        *(toy(f"steps-{n}", "fewer-steps", n, curve="fewer steps") for n in (33, 25, 20, 17, 12)),
        *(toy(f"solver-{n}", "solver", n, curve="second order", second=True) for n in (33, 25, 20, 17, 12)),
        Contender(name="peer-broken", label="broken peer", kind="peer", steps=50, batch=1, generate=broken),
    ]


def toy_check(media: list[np.ndarray], prompts: list[int]) -> list[dict[str, float]]:
    return [{"bright": float(m.mean() > 0.4), "class": float(p % 4 != 3)} for m, p in zip(media, prompts, strict=True)]


def toy_study(folder: Path, requests: int = 12, **settings) -> Study:
    return Study(
        contenders=settings.pop("contenders", None) or toy_contenders(),
        requests=[Request(index=i, prompt=i % 10, seed=100 + i) for i in range(requests)],
        folder=folder,
        check=toy_check,
        batch=settings.pop("batch", 5),
        identity={"pipeline": "toy"},
        **settings,
    )


@pytest.fixture(scope="session")
def make_study():
    """`make_study(folder, requests=12, contenders=None, batch=5, ...)`: a study of toy contenders."""
    return toy_study


@pytest.fixture(scope="session")
def make_contender():
    """`make_contender(name, kind, steps, threshold=..., interval=..., second=...)`: one toy contender."""
    return toy
