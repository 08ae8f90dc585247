"""What serving strangers together brings and costs: `outpace serve` under load, beside one at a time and beside exact.

    make bench-serve     # or: python benchmarks/serve.py [--requests COUNT] [--steps COUNT] [--replicas COUNT] ...

One server with replicas of Ray Serve is asked three ways, in turn: one after the other (a part of the requests each
round), all at once with every block computed, and all at once with the quality each asked for. Every picture made in
company is held to the one made alone, in floats, and so is every decision. Then a replica is killed (kill -9) while all
are asked again. Seconds are by the clock and, because machines are shared, of the replicas' processes too. Writes
benchmarks/results/serve.json and docs/results_serve.md.
"""

from __future__ import annotations

import argparse
import base64
import io
import itertools
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import openai
import psutil

from outpace.evaluation.atomic import make_folder, write_json, write_text
from outpace.evaluation.environment import environment
from outpace.pipelines.pocket.recipes import POCKETS
from outpace.serve.tiers import TIERS

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 2
FIRST_SEED = 900_000
START_SECONDS = 300
WAYS = {
    "one at a time": "one at a time, each at its quality",
    "exact": "all at once, every block computed",
    "mixed": "all at once, each at its quality",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """One stranger's request."""

    prompt: str
    seed: int
    quality: str
    steps: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of it."""

    picture: np.ndarray
    computed: dict[str, Any]
    batch: int
    seed: int


@contextmanager
def running(*options: str, log: Path | None = None) -> Iterator[tuple[str, psutil.Process]]:
    """A server as a process of its own, and its address. Nothing of it is left afterwards."""
    command = [sys.executable, "-m", "outpace", "serve", *options, "--port", "0"]
    told = open(log, "w", encoding="utf-8") if log is not None else None
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=told, text=True, env=environment)
    process = psutil.Process(server.pid)
    timer = threading.Timer(START_SECONDS, server.kill)
    timer.start()
    family: list[psutil.Process] = []
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        timer.cancel()
        if " is served at http" not in line:
            raise SystemExit(f"the server did not start: {line or 'it said nothing'}")
        yield line.split(" is served at ")[1].split(" by ")[0], process
    finally:
        timer.cancel()
        if process.is_running():
            family = process.children(recursive=True)
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:
            server.kill()
        _, left = psutil.wait_procs(family, timeout=20)
        for one in left:
            one.kill()
        if told is not None:
            told.close()


def replicas_of(server: psutil.Process) -> list[psutil.Process]:
    """The processes that hold an engine."""
    found = []
    for child in server.children(recursive=True):
        try:
            if any("ServeReplica" in word for word in child.cmdline()):
                found.append(child)
        except psutil.Error:
            continue
    return found


def cpu_seconds(server: psutil.Process) -> float:
    """Of all replicas since they were started."""
    return sum(sum(one.cpu_times()[:2]) for one in replicas_of(server))


def wanted_of(pipeline: str, count: int, steps: int) -> list[Wanted]:
    """Prompts, seeds and qualities of so many strangers; some have the same prompt or the same seed as others."""
    prompts = [str(prompt) for prompt in POCKETS[pipeline].prompts(max(4, count // 3), "held_out")]
    return [
        Wanted(prompt=prompt, seed=FIRST_SEED + number % (count // 2 + 1), quality=tier, steps=steps)
        for number, prompt, tier in zip(range(count), itertools.cycle(prompts), itertools.cycle(TIERS), strict=False)
    ]


def ask(client: openai.OpenAI, wanted: Wanted) -> Answer:
    """One request, as anybody would send it."""
    extra = {"quality": wanted.quality, "seed": wanted.seed, "steps": wanted.steps, "output_format": "npy"}
    made: Any = client.images.generate(prompt=wanted.prompt, extra_body=extra).to_dict()
    (data,) = made["data"]
    told = data["outpace"]
    picture = np.load(io.BytesIO(base64.b64decode(data["b64_json"])), allow_pickle=False)
    return Answer(picture, told["computed"], told["batch"], told["seed"])


def ask_all(
    url: str, wanted: Sequence[Wanted], people: int, answered: Callable[[], None] = lambda: None
) -> list[Answer]:
    """The answers to all, `people` at a time; nothing is asked twice."""
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=1800) as client:

        def one(asked: Wanted) -> Answer:
            answer = ask(client, asked)
            answered()
            return answer

        with ThreadPoolExecutor(people) as crowd:
            return list(crowd.map(one, wanted))


def difference(made: Sequence[Answer], alone: Sequence[Answer]) -> dict[str, float]:
    """How far pictures made in company are from those made alone, and how many decisions differ."""
    return {
        "pixels": max(float(np.abs(a.picture - b.picture).max()) for a, b in zip(made, alone, strict=True)),
        "decisions": sum(a.computed != b.computed for a, b in zip(made, alone, strict=True)),
    }


def kill_after(server: psutil.Process, count: int) -> tuple[Callable[[], None], list[int]]:
    """A function to call at each answer, and the process that it killed at answer `count`."""
    killed: list[int] = []
    lock, answers = threading.Lock(), itertools.count(1)

    def answered() -> None:
        with lock:
            if next(answers) == count:
                victim = replicas_of(server)[0]
                killed.append(victim.pid)
                victim.kill()

    return answered, killed


def compare(url: str, server: psutil.Process, wanted: Sequence[Wanted]) -> dict[str, Any]:
    """All three ways in turn, then a replica killed under load."""
    ask_all(url, wanted[:4], 4)  # what is first pays for what is set up once
    rows: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    answers: dict[str, list[Answer]] = {way: [] for way in WAYS}
    size = -(-len(wanted) // ROUNDS)
    for start in range(0, len(wanted), size):
        asked = {
            "one at a time": wanted[start : start + size],
            "exact": [replace(one, quality="exact") for one in wanted],
            "mixed": wanted,
        }
        for way, part in asked.items():
            begin, work = time.perf_counter(), cpu_seconds(server)
            answers[way] += ask_all(url, part, 1 if way == "one at a time" else len(part))
            seconds = time.perf_counter() - begin
            rows[way].append({"seconds": seconds, "cpu": cpu_seconds(server) - work, "pictures": len(part)})
    alone, mixed = answers["one at a time"], answers["mixed"]
    answered, killed = kill_after(server, max(1, len(wanted) // 5))
    again = ask_all(url, wanted, len(wanted), answered)
    return {
        "ways": {
            way: {
                "rounds": rows[way],
                "share": statistics.mean(answer.computed["share"] for answer in answers[way]),
                "batch": statistics.mean(answer.batch for answer in answers[way]),
            }
            for way in WAYS
        },
        "alone": max(answer.batch for answer in alone) == 1,
        "difference": difference(mixed, alone * ROUNDS),
        "killed": {"processes": len(killed), "answers": len(again), **difference(again, alone)},
        "qualities": {
            tier: statistics.mean(
                a.computed["share"] for a, w in zip(mixed, [*wanted] * ROUNDS, strict=True) if w.quality == tier
            )
            for tier in TIERS
        },
    }


def table(found: dict[str, Any]) -> str:
    """The figures as a page shows them."""
    base = found["ways"]["exact"]["rounds"]
    lines = [
        "| asked | pictures a second | beside exact | CPU seconds each | beside exact | batch | blocks |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for way, words in WAYS.items():
        row = found["ways"][way]
        rounds = row["rounds"]
        pictures = sum(one["pictures"] for one in rounds)
        clock = [per_picture(b, "seconds") / per_picture(a, "seconds") for a, b in zip(rounds, base, strict=True)]
        work = [per_picture(b, "cpu") / per_picture(a, "cpu") for a, b in zip(rounds, base, strict=True)]
        lines.append(
            f"| {words} | {pictures / sum(one['seconds'] for one in rounds):.2f} | {spread(clock)} | "
            f"{sum(one['cpu'] for one in rounds) / pictures:.2f} | {spread(work)} | "
            f"{row['batch']:.1f} | {row['share']:.0%} |"
        )
    return "\n".join(lines)


def per_picture(row: dict[str, float], what: str) -> float:
    return row[what] / row["pictures"]


def spread(ratios: Sequence[float]) -> str:
    return f"{statistics.mean(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def page(found: dict[str, Any], asked: argparse.Namespace, machine: dict[str, Any]) -> str:
    differs, killed = found["difference"], found["killed"]
    qualities = ", ".join(f"{tier} {share:.0%}" for tier, share in found["qualities"].items())
    return f"""# Serving strangers together: what it brings and costs

Written by `make bench-serve`; nothing here is typed in. How it works: [serve.md](serve.md).

{asked.requests} strangers ask the pocket `{asked.pipeline}`, {asked.steps} steps, a quarter each exact, high, medium
and low, from {asked.replicas} replicas with batches of up to {asked.max_batch}, one thread each.

{table(found)}

Ratios stand beside all at once with every block computed: means of {ROUNDS} rounds of all three ways (least to most);
one at a time a part of them asks each round, all at once everybody. 2 is twice as fast, or half the work. CPU seconds
are those of the replicas. The last columns are the mean batch and the share of blocks computed; by quality:
{qualities}.

- In company beside alone: the pixels of no picture differ by more than {differs["pixels"]:.1e}, and
  {differs["decisions"]} of {ROUNDS} times {asked.requests} differ in a decision.
- With {killed["processes"]} of {asked.replicas} replicas killed under load: {killed["answers"]} of {asked.requests}
  answered, none by more than {killed["pixels"]:.1e} from the picture made alone, {killed["decisions"]} with another
  decision.

{chr(10).join(f"- {key}: {value}" for key, value in machine.items())}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipeline", default="dit", choices=list(POCKETS))
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--max-batch", type=int, default=8)
    parser.add_argument("--out", type=Path, default=None, help="folder for both files [default: where they are kept]")
    asked = parser.parse_args()
    wanted = wanted_of(asked.pipeline, asked.requests, asked.steps)
    options = (
        "--replicas",
        asked.replicas,
        "--max-batch",
        asked.max_batch,
        "--queue",
        asked.requests,
        "--timeout",
        1800,
    )
    with running(asked.pipeline, *map(str, options)) as (url, server):
        found = compare(url, server, wanted)
    machine = environment()
    results = make_folder(asked.out or ROOT / "benchmarks" / "results")
    write_json(results / "serve.json", {**found, "asked": {k: str(v) for k, v in vars(asked).items()}, **machine})
    text = page(found, asked, machine)
    write_text((asked.out or ROOT / "docs") / "results_serve.md", text)
    print(text)


if __name__ == "__main__":
    main()
