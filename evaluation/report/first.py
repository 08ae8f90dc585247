"""What is read in five seconds: one sentence, three tiles and one pair of pictures, of one contender."""

from __future__ import annotations

from statistics import mean, median
from typing import Any

from .verdict import counts_work, headline_cell


def hero(results: dict[str, Any]) -> dict[str, Any] | None:
    """The contender that the first screen is about: one asked for by name, else the point of our headline curve nearest
    to the speed-up looked at, a timed one where there is one; None where nothing of ours ran."""
    study, kinds = results["study"], results["kinds"]
    ours = [c for c in results["contenders"] if kinds[c["kind"]]["ours"] and not c["error"] and c["speedup"]]
    ours = [c for c in ours if study["headline"] in (c["metrics"] or {}).get(study["plain"], {})]
    if not ours:
        return None
    cell = headline_cell(results, study["plain"])
    asked = [c for c in ours if c.get("shown")]
    of_curve = [c for c in ours if cell and c["curve"] == cell["curve"]]
    among = asked or of_curve or ours
    timed = [c for c in among if c["time"]]
    return min(timed or among, key=lambda c: abs(c["speedup"]["value"] - study["target"]))


def obeyed(contender: dict[str, Any]) -> float | None:
    """Mean share of what prompts ask for; None where nothing reads it."""
    checks = contender.get("checks") or {}
    return mean(check["value"] for check in checks.values()) if checks else None


def seconds(contender: dict[str, Any]) -> tuple[float, float] | None:
    """Median seconds of a call, plain and its own; None where it was not timed."""
    pairs = (contender.get("time") or {}).get("pairs")
    if not pairs:
        return None
    plain, own = (median(pair[side]["wall"] for pair in pairs) for side in ("plain", "contender"))
    return plain, own


def first_screen(results: dict[str, Any]) -> dict[str, Any] | None:
    """{"sentence", "tiles": [{"name", "value", "said", "good"}], "name", "plain", "index"}; None without a hero.

    "index" is the request whose picture is furthest from the plain pipeline's.
    """
    found = hero(results)
    if found is None:
        return None
    study, metric = results["study"], results["metrics"][results["study"]["headline"]]
    plain = next(c for c in results["contenders"] if c["name"] == study["plain"])
    fidelity = found["metrics"][study["plain"]][study["headline"]]
    less = f"{found['speedup']['value']:.1f}x {'less work' if counts_work(results) else 'fewer blocks'}"
    wall = found["time"]["wall"]["value"] if found["time"] else None
    what = "clip" if results["pipeline"]["kind"] == "video" else "picture"
    identical = metric["cap"] is not None and fidelity["worst"] is not None and fidelity["worst"] >= metric["cap"]
    worst = "identical" if identical else f"{fidelity['worst']:.1f} {metric['unit']}"
    sentence = (
        f"{found['label']} is {wall:.1f}x as fast with {less}" if wall else f"{found['label']} computes {less}"
    ) + (f"; every {what} is the plain pipeline's" if identical else f"; its worst {what} lies at {worst}")
    tiles = [time_tile(found, less), worst_tile(fidelity, metric, worst, what), prompt_tile(found, plain)]
    return {
        "sentence": sentence,
        "tiles": tiles,
        "name": found["name"],
        "label": found["label"],
        "curve": found["curve"],
        "plain": study["plain"],
        "index": found["worst"].get(study["plain"]),
        "what": what,
    }


def time_tile(found: dict[str, Any], less: str) -> dict[str, str]:
    """How much sooner, in seconds."""
    spent = seconds(found)
    if spent is None:
        return {"name": "time", "value": "not measured", "said": less}
    wall = found["time"]["wall"]
    said = f"{spent[0]:.2g} s to {spent[1]:.2g} s a sample; {less}"
    return {"name": "time", "value": f"{wall['value']:.1f}x as fast", "said": said}


def worst_tile(fidelity: dict[str, Any], metric: dict[str, Any], worst: str, what: str) -> dict[str, str]:
    """The sample furthest from the plain pipeline's."""
    said = f"mean {fidelity['value']:.1f} {metric['unit']} of {fidelity['n']}; {metric['label']} to plain"
    return {"name": f"worst {what}", "value": worst, "said": said}


def prompt_tile(found: dict[str, Any], plain: dict[str, Any]) -> dict[str, str]:
    """The share of what prompts ask for that is still seen."""
    own, before = obeyed(found), obeyed(plain)
    if own is None or before is None:
        return {"name": "prompt followed", "value": "not checked", "said": "no checker is known for these prompts"}
    return {"name": "prompt followed", "value": f"{own:.0%}", "said": f"plain pipeline {before:.0%}"}
