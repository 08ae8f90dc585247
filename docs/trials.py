"""Writes docs/results_trials.md: what came of every paper's claim, from the files of `outpace models bench --save`.

python docs/trials.py
"""

from __future__ import annotations

from pathlib import Path

from outpace.models import MODELS
from outpace.models.trials.trial import SHOWN, margins, read_results

PAGE = Path(__file__).parent / "results_trials.md"


def page() -> str:
    """The page's text."""
    rows, changed, counts = [], [], {}
    for name in MODELS:
        results = read_results(name)
        if results is None:
            continue
        gained = results["gains"]
        earlier = all(gain > 0 for gains in gained.values() for gain in gains[:3])
        counts[results["verdict"]] = counts.get(results["verdict"], 0) + 1
        told = "; ".join(
            f"{arm}: {margin:+.1%}, p = {results['p'][arm]:.2g}" for arm, margin in margins(results).items()
        )
        seconds = sum(run["process_seconds"] for run in results["runs"])
        seeds = "; ".join(f"{run['seeds'][0]}-{run['seeds'][-1]}" for run in results["runs"])
        before = "shown" if earlier else "not shown"
        rows.append(f"| {name} | {before} | {results['verdict']} | {seeds} | {told} | {seconds:.0f} s |")
        if earlier != (results["verdict"] == SHOWN):
            changed.append(f"`{name}`")
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
    return "\n".join(
        [
            "# Papers' claims, tried in small",
            "`python docs/trials.py` wrote this page from `models/trials/results`; `outpace models bench NAME --save`",
            "measures.",
            "",
            "A claim is shown where chance would give the mean gain over every arm in at most one case in twenty:",
            "signs of the paired gains flipped in all ways, at least five seeds (p = 1/32 = 0.031 when all are gains).",
            "Before, being better in each of three seeds was enough, which a method that is no better is once in eight",
            "times.",
            "",
            f"{verdicts[0].upper()}{verdicts[1:]}.",
            f"Verdicts that the rule changed: {', '.join(changed) or 'none'}.",
            "",
            "Seeds of one range were run together; where there are two ranges, the first was run earlier.",
            "",
            "| paper | by its first three seeds | verdict | seeds | mean gain over each arm | processor time |",
            "| --- | --- | --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
