"""The result in sentences: what was reached, by how much, and every comparison that was lost."""

from __future__ import annotations

from typing import Any

from .attention import attention_lines
from .equal import equal_losses, same_picture_in_words
from .matrix import matrix_sentences


def span(entry: dict[str, Any], digits: int = 1, signed: bool = False) -> str:
    """A value with its range: "51.2 (50.1 to 52.4)"."""
    sign = "+" if signed else ""
    if entry["low"] is None:
        return f"{entry['value']:{sign}.{digits}f}"
    return f"{entry['value']:{sign}.{digits}f} ({entry['low']:{sign}.{digits}f} to {entry['high']:{sign}.{digits}f})"


def memory_in_words(memory: dict[str, Any] | None) -> str:
    """Peak memory of a call above what was held before, and as a multiple of the plain pipeline's."""
    if not memory or memory["above"] is None:
        return ""
    ratio = f", {memory['ratio']:.2f}x" if memory["ratio"] is not None else ""
    return f"{memory['above'] / 1e6:.1f} MB{ratio}"


def reference_words(results: dict[str, Any], reference: str) -> str:
    """ "the plain pipeline" or "the converged solution"."""
    return "the plain pipeline" if reference == results["study"]["plain"] else "the converged solution"


def less_computed(results: dict[str, Any]) -> str:
    """What a speed-up that was counted says: "fewer computed blocks", "less computed work"."""
    return "less computed work" if counts_work(results) else "fewer computed blocks"


def counts_work(results: dict[str, Any]) -> bool:
    """Whether blocks with sparse attention are among what is counted, so that not all blocks are alike."""
    return results["study"].get("compute") == "work"


def without_effect(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Peers whose every sample is the plain pipeline's own: their cache did nothing, and their curve means nothing."""
    study = results["study"]
    found = []
    for c in results["contenders"]:
        if c["kind"] == "peer" and not c["error"] and c["speedup"] and abs(c["speedup"]["value"] - 1) < 1e-6:
            fidelity = (c["metrics"].get(study["plain"]) or {}).get(study["headline"])
            if fidelity and fidelity["capped"] == fidelity["n"]:
                found.append(c)
    return found


def headline_cell(results: dict[str, Any], reference: str) -> dict[str, Any] | None:
    """The cell the summary speaks of: our first curve of the fitting kind, at the speed-up nearest to that looked at.

    Against the plain pipeline that is a forecast on the same solver, scheduled before gated; against the converged
    solution, one on the second-order solver where there is one. Where attention is sparse, it is about that.
    """
    same, better = ("scheduled", "gated"), ("scheduled+solver", "gated+solver")
    wanted = (*same, *better) if reference == results["study"]["plain"] else (*better, *same)
    if counts_work(results):
        wanted = ("scheduled+sparse", "gated+sparse", "sparse", *wanted)
    target = results["study"]["target"]
    order = sorted(results["speedups"], key=lambda speedup: abs(speedup - target))
    for kind in wanted:
        for speedup in order:
            for cell in results["cells"].get(reference, []):
                if cell["kind"] == kind and cell["speedup"] == speedup and cell["quality"]:
                    return cell
    return None


def margins_in_words(cell: dict[str, Any], unit: str, fewer_steps: set[str]) -> str:
    """How far from fewer steps of the same solver, and from the strongest rival; the table holds the others."""
    ranked = sorted(cell["margins"].items(), key=lambda item: -item[1]["value"])
    spoken = [item for item in ranked if item[0] in fewer_steps or item == ranked[-1]]
    parts = []
    for rival, margin in spoken:
        if margin["verdict"] == "even":
            parts.append(f"level with {rival} ({margin['value']:+.1f} {unit}, not significant)")
        else:
            side = "above" if margin["value"] > 0 else "below"
            size = f"{abs(margin['value']):.1f} {unit}"
            bounds = sorted(abs(margin[end]) for end in ("low", "high"))
            parts.append(f"{size} ({bounds[0]:.1f} to {bounds[1]:.1f}) {side} {rival}")
    if len(ranked) > 1:
        parts[-1] += ", the strongest rival there"
    return "; ".join(parts)


def time_in_words(results: dict[str, Any], curve: str, speedup: float) -> str | None:
    """The measured time of the point of `curve` nearest to `speedup`."""
    points = [c for c in results["contenders"] if c["curve"] == curve and not c["error"] and c["time"]]
    if not points:
        return None
    nearest = min(points, key=lambda c: abs(c["speedup"]["value"] - speedup))
    wall = nearest["time"]["wall"]
    pairs = f"median of {wall['n']} pairs, quartiles {wall['low']:.2f} to {wall['high']:.2f}"
    if wall["n"] == 1:
        pairs = "one pair only"
    return (
        f"Measured at batch {timing_batch(results)}, {nearest['label']} computes {nearest['speedup']['value']:.2f}x "
        f"{'less' if counts_work(results) else 'fewer blocks'} and is "
        f"{wall['value']:.2f}x as fast as the plain pipeline ({pairs})."
    )


def timing_batch(results: dict[str, Any]) -> int:
    """Requests a timed call; one where results are older than the setting."""
    return results["study"].get("timing_batch", 1)


def lost(results: dict[str, Any], spoken_of: set[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """One line a curve of ours and rival that is significantly ahead of it: where, at equal speed, time or picture.

    Args:
        spoken_of: (reference, curve) of the summary's sentences.

    Returns: the lines about those, and the others.
    """
    unit = results["metrics"][results["study"]["headline"]]["unit"]
    first, others = [], []
    for reference in results["study"]["references"]:
        found: dict[tuple[str, str], list[str]] = {}
        for cell in results["cells"].get(reference, []):
            for rival, margin in cell["margins"].items():
                if margin["verdict"] == "behind":
                    where = f"{-margin['value']:.1f} {unit} at {cell['speedup']:g}x"
                    found.setdefault((cell["curve"], rival), []).append(where)
        for pair, where in equal_losses(results, reference).items():
            found.setdefault(pair, []).extend(where)
        for (curve, rival), where in found.items():
            line = f"Against {reference_words(results, reference)}, {curve} is behind {rival}: {', '.join(where)}"
            (first if (reference, curve) in spoken_of else others).append(line)
    return first, others


def lost_in_short(results: dict[str, Any]) -> list[str]:
    """Losses at equal speed, one sentence a curve of ours and reference: to how many rivals, and where it is worst."""
    unit = results["metrics"][results["study"]["headline"]]["unit"]
    said = []
    for reference in results["study"]["references"]:
        behind: dict[str, list[tuple[float, str, float]]] = {}
        met: dict[str, set[str]] = {}
        for cell in results["cells"].get(reference, []):
            for rival, margin in cell["margins"].items():
                met.setdefault(cell["curve"], set()).add(rival)
                if margin["verdict"] == "behind":
                    behind.setdefault(cell["curve"], []).append((-margin["value"], rival, cell["speedup"]))
        for curve, losses in behind.items():
            rivals = {rival for _, rival, _ in losses}
            size, rival, speedup = max(losses)
            said.append(
                f"Against {reference_words(results, reference)}, {curve} is behind {len(rivals)} of {len(met[curve])} "
                f"rivals somewhere; most behind {rival}, by {size:.1f} {unit} at {speedup:g}x"
            )
    return said


def verdict(results: dict[str, Any]) -> dict[str, Any]:
    """The result in words.

    Returns: "sentences", the summary; "losses", what was lost by the curves it speaks of, then by others of ours;
        "other_losses", the second part of these; "in_short", those at equal speed, a sentence a curve; "gaps", what is
        missing from the comparison; "compared", whether anything of ours met a rival at equal speed; "attention", a
        line for each contender whose attention is sparse.
    """
    unit = results["metrics"][results["study"]["headline"]]["unit"]
    label = results["metrics"][results["study"]["headline"]]["label"]
    sentences, spoken_of = [], set()
    fewer_steps = {c["curve"] for c in results["contenders"] if c["kind"] == "fewer-steps"}
    for reference in results["study"]["references"]:
        cell = headline_cell(results, reference)
        if cell is None:
            continue
        spoken_of.add((reference, cell["curve"]))
        words = reference_words(results, reference)
        sentence = (
            f"At {cell['speedup']:g}x {less_computed(results)}, {cell['curve']} lies at {label} "
            f"{span(cell['quality'])} {unit} against {words}"
        )
        sentences.append(sentence + (f": {margins_in_words(cell, unit, fewer_steps)}." if cell["margins"] else "."))
        more = (
            time_in_words(results, cell["curve"], cell["speedup"]),
            same_picture_in_words(results, reference, cell["curve"]),
        )
        # The time of a point is the same whatever its pictures are held against.
        sentences += [spoken for spoken in more if spoken and spoken not in sentences]
    first, others = lost(results, spoken_of)
    sentences += matrix_sentences(results)
    if not sentences:
        sentences.append(
            "No curve of ours reaches the compared speed-ups here, so there is no headline; see the table below."
        )
    failed: dict[tuple[str, str], list[str]] = {}
    for c in results["contenders"]:
        if c["error"]:
            failed.setdefault((c["curve"], c["error"]), []).append(c["label"])
    gaps = [
        f"{labels[0] if len(labels) == 1 else f'{curve} ({len(labels)} settings)'} did not run: {error}"
        for (curve, error), labels in failed.items()
    ]
    gaps += [
        f"{c['label']}: {c['not_finite']} of {len(c['samples'])} samples are not finite, so it has no mean"
        for c in results["contenders"]
        if not c["error"] and c["not_finite"]
    ]
    gaps += [f"{c['label']} had no effect here: every block was computed" for c in without_effect(results)]
    gaps += [
        f"Peak memory not measured: {reason}"
        for reason in dict.fromkeys((c.get("memory") or {}).get("missing") for c in results["contenders"])
        if reason
    ]
    missing: dict[str, list[str]] = {}
    for metric in results.get("not_run", []):
        if metric["applies"]:
            missing.setdefault(metric["reason"], []).append(metric["label"])
    gaps += [f"{', '.join(labels)} not run: {reason}" for reason, labels in missing.items()]
    return {
        "sentences": sentences,
        "losses": first + others,
        "other_losses": others,
        "in_short": lost_in_short(results),
        "gaps": gaps,
        "compared": any(cell["margins"] for cells in results["cells"].values() for cell in cells),
        "attention": attention_lines(results),
    }
