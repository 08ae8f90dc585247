"""Step timelines: for each contender, which steps were computed, and what the gate measured."""

from __future__ import annotations

from typing import Any

from .pictures import representatives

EVERY_STEP = ("plain", "converged", "fewer-steps", "solver", "sparse")
"""Kinds that compute every step, of which a timeline would say nothing."""
FEW = 4
"""As many timelines beside those of contenders in pictures are not folded away."""


def timelines(results: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """One entry a contender whose decisions are known: branches with their steps, ready to draw.

    "first" has those that are shown in pictures, "others" the rest; a few are not parted. A step has "computed" (share
    of samples), "error" (its place between 0 and the contender's largest gate error) and "title" (all of it in words).
    """
    pictured = {c["name"] for c in representatives(results)}
    first: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for c in results["contenders"]:
        if c["error"] or not c.get("timeline") or c["kind"] in EVERY_STEP:
            continue
        errors = [s["error"] for s in c["timeline"] if s["error"] is not None]
        largest = max(errors, default=0.0)
        branches: dict[str, list[dict[str, Any]]] = {}
        for step in c["timeline"]:
            branches.setdefault(step["branch"], []).append(
                {
                    "computed": step["computed"],
                    "error": step["error"] / largest if largest > 0 and step["error"] is not None else None,
                    "title": step_words(step),
                }
            )
        computed = sum(s["computed"] for s in c["timeline"])
        settings = c["settings"] or {}
        threshold = settings.get("threshold") if settings.get("gate") == "paper" else None
        (first if c["name"] in pictured else others).append(
            {
                "label": c["label"],
                "curve": c["curve"],
                "branches": [
                    {"name": name, "steps": steps, "measured": any(s["error"] is not None for s in steps)}
                    for name, steps in branches.items()
                ],
                "computed": computed,
                "calls": len(c["timeline"]),
                "speedup": c["speedup"]["value"] if c["speedup"] else None,
                "largest": largest,
                "threshold": threshold / largest if threshold and 0 < threshold < largest else None,
            }
        )
    if len(others) <= FEW or not first:
        return {"first": first + others, "others": []}
    return {"first": first, "others": others}


def step_words(step: dict[str, Any]) -> str:
    """One step for a person who points at it."""
    words = [f"step {step['step'] + 1}"]
    if step["sigma"] is not None:
        words.append(f"noise level {step['sigma']:.3f}")
    words.append(f"computed for {step['computed']:.0%} of samples")
    if step["error"] is not None:
        words.append(f"gate error {step['error']:.3g}, at most {step['error_high']:.3g}")
    if step["reasons"]:
        words.append(", ".join(f"{reason} {count}" for reason, count in step["reasons"].items()))
    return "; ".join(words)
