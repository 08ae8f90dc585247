"""Runs contenders over requests, measures each against the references, and keeps every batch as it comes."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict

from tqdm.auto import tqdm

from .contender import Contender, Request
from .memory import Memory, peak_memory
from .pareto import nearest_of_each
from .records import Records, fingerprint
from .samples import BatchMaker, mark_of, run_stage
from .stages import stages_of
from .study import Row, Study
from .timing import Pair, Span, time_pairs
from .workers import Alone, Crew


def run_study(study: Study, *, crew: Crew | None = None, progress: bool = True) -> list[Row]:
    """Run what is not kept yet and return one row a contender, in the order of `study.contenders`.

    A contender other than a reference that raises is returned with its error: a comparison that drops what failed
    flatters what is left. The error of a reference is raised, since nothing can be said without it.

    Args:
        crew: who makes the batches, each with a `BatchMaker` of this study; None: this process. Only the leading one
            returns rows, and takes times, when it is alone.
    """
    records = Records(study.folder)
    crew = crew or Alone(BatchMaker(study))
    ordered = study.ordered()
    by_name = {c.name: Row(contender=c) for c in ordered}
    rows = list(by_name.values())
    chosen = list(study.requests[: study.timing_requests])
    call = chosen[: study.timing_batch]
    bar = tqdm(
        total=len(ordered) * len(study.requests),
        unit="sample",
        desc="compare",
        disable=not (progress and crew.leads),
        dynamic_ncols=True,
    )
    with bar:
        with closing(crew):
            for stage in study.stages():
                run_stage(study, records, crew, [by_name[c.name] for c in stage], bar)
        if not crew.leads:
            return []
        timed = rows_to_time(study, by_name) if study.timing_requests else []
        bar.total += len(timed)
        plain, warm = by_name[study.plain], set()
        for row in timed:
            bar.set_postfix_str(f"timing {row.contender.name}")
            row.pairs = run_timing(study, records, plain.contender, row.contender, chosen, warm)
            bar.update(1)
        for row in [plain, *timed] if timed else []:
            bar.set_postfix_str(f"memory of {row.contender.name}")
            row.memory = run_memory(study, records, row.contender, call, warm)
        for row in [plain, *timed] if timed and study.parts else []:
            bar.set_postfix_str(f"stages of {row.contender.name}")
            row.stages = run_stages(study, records, row.contender, call, warm)
        for row in rows if study.timing_requests else []:  # what was measured before costs nothing more
            row.pairs = row.pairs or kept_timing(study, records, row.contender, chosen) or []
            row.memory = row.memory or kept_memory(study, records, row.contender, call)
    return [by_name[c.name] for c in study.contenders]


def rows_to_time(study: Study, by_name: dict[str, Row]) -> list[Row]:
    """The rows whose contenders are timed, as `study.timed` says; never a reference, never one that failed."""
    plain = sum(sample["work"] for sample in by_name[study.plain].samples)
    work = {
        name: sum(sample["work"] for sample in row.samples)
        for name, row in by_name.items()
        if name not in study.references and row.error is None
    }
    if study.timed == "every":
        return [by_name[name] for name in work]
    speedups = {name: plain / spent for name, spent in work.items() if spent > 0}
    curves = {name: by_name[name].contender.curve for name in speedups}
    near = {name for at in (study.target, *study.speedups) for name in nearest_of_each(speedups, curves, at)}
    return [row for name, row in by_name.items() if name in work and (name in near or row.contender.shown)]


def timing_mark(study: Study, contender: Contender, requests: list[Request]) -> str:
    """Fingerprint of a contender's times."""
    in_calls = [study.timing_batch] if study.timing_batch > 1 else []
    return fingerprint(mark_of(study, contender, requests), study.timing_rounds, study.device, *in_calls)


def kept_timing(study: Study, records: Records, contender: Contender, requests: list[Request]) -> list[Pair] | None:
    """Paired times that an earlier run measured, or None."""
    kept = records.load(records.cell(contender.name) / "timing.json", timing_mark(study, contender, requests))
    return None if kept is None else [Pair(plain=Span(**p["plain"]), contender=Span(**p["contender"])) for p in kept]


def run_timing(
    study: Study,
    records: Records,
    plain: Contender,
    contender: Contender,
    requests: list[Request],
    warm: set[str],
) -> list[Pair]:
    """Paired times of one contender, from disk where they are kept.

    Args:
        warm: names of those that were called in this process already; grows.
    """
    kept = kept_timing(study, records, contender, requests)
    if kept is not None:
        return kept
    size = study.timing_batch
    calls = [requests[start : start + size] for start in range(0, len(requests), size)]
    for one in (plain, contender):
        warm_up(one, calls[0], warm)
    pairs = time_pairs(
        plain.run_timed,
        contender.run_timed,
        calls,
        device=study.device,
        rounds=study.timing_rounds,
        warm=True,
    )
    path = records.cell(contender.name) / "timing.json"
    records.save(path, timing_mark(study, contender, requests), [p.as_dict() for p in pairs])
    return pairs


def warm_up(contender: Contender, call: list[Request], warm: set[str]) -> None:
    """One call that nobody measures, unless there was one: first calls allocate, load and compile."""
    if contender.name not in warm:
        contender.run_timed(call)
        warm.add(contender.name)


def memory_mark(study: Study, contender: Contender, call: list[Request]) -> str:
    """Fingerprint of a contender's peak memory."""
    return fingerprint(mark_of(study, contender, call), study.device)


def kept_memory(study: Study, records: Records, contender: Contender, call: list[Request]) -> Memory | None:
    """Peak memory that an earlier run measured, or None."""
    kept = records.load(records.cell(contender.name) / "memory.json", memory_mark(study, contender, call))
    return None if kept is None else Memory(**kept)


def run_stages(
    study: Study, records: Records, contender: Contender, call: list[Request], warm: set[str]
) -> dict[str, float] | None:
    """Seconds of one call of a contender by stage, from disk where they are kept."""
    path = records.cell(contender.name) / "stages.json"
    mark = fingerprint(mark_of(study, contender, call), study.device, sorted(study.parts))
    kept = records.load(path, mark)
    if kept is None:
        warm_up(contender, call, warm)
        kept = {"stages": stages_of(lambda: contender.run_timed(call), study.parts, study.device)}
        records.save(path, mark, kept)
    return kept["stages"]


def run_memory(study: Study, records: Records, contender: Contender, call: list[Request], warm: set[str]) -> Memory:
    """Peak memory of one call of a contender, from disk where it is kept."""
    kept = kept_memory(study, records, contender, call)
    if kept is None:
        warm_up(contender, call, warm)
        kept = peak_memory(lambda: contender.run_timed(call), study.device)
        records.save(records.cell(contender.name) / "memory.json", memory_mark(study, contender, call), asdict(kept))
    return kept
