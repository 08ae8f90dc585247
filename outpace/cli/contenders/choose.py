"""Who takes part in a comparison: the references, ours at several settings, and the rivals, chosen by their names."""

from __future__ import annotations

from collections.abc import Sequence

# The curves register themselves, in the order in which reports show them.
from outpace.cli.contenders import forecasts, solvers, sparse, bricks  # noqa: F401  # isort: skip
from outpace.cli.contenders.also import other_contenders
from outpace.cli.contenders.asked import asked_contenders
from outpace.cli.contenders.bench import Bench
from outpace.cli.contenders.converted import converted_contenders
from outpace.cli.contenders.curve import CONVERGED_STEPS, CURVES, Curve, converged, plain
from outpace.cli.contenders.peers import peer_curve
from outpace.errors import InputError, UnknownNameError
from outpace.evaluation import Contender
from outpace.evaluation.peers import PEERS
from outpace.registry import suggestion

MAIN = (
    "scheduled",
    "scheduled+solver",
    "gated",
    "gated+solver",
    "gated+solver-short",
    "interval",
    "fewer-steps",
    "dpm++",
    "unipc",
)
"""What `--methods main` runs; `all` adds every other curve and every peer; sparse attention and bricks only where
they are named."""


def build_contenders(
    bench: Bench, methods: str, asked: Sequence[str] = (), converged_steps: int = CONVERGED_STEPS
) -> list[Contender]:
    """The references, then what is asked for one by one, converted and other pipelines, then what `methods` names.

    Args:
        methods: "all", "main", or curves and contenders separated by commas; "none" adds nothing.
        asked: combinations of methods as `--method` spells them.
        converged_steps: of the converged reference; 0 leaves it out.

    Raises: UnknownNameError for a name that is none of these; ConfigError, ConflictError for a combination.
    """
    curves = all_curves()
    built = {name: curve.build(bench) for name, curve in curves.items()}
    first = [plain(bench), *([converged(bench, converged_steps)] if converged_steps else [])]
    first += asked_contenders(bench, asked, bench.steps)
    first += converted_contenders(bench, bench.converted)
    first += other_contenders(bench)
    every = {c.name: c for contenders in built.values() for c in contenders}
    chosen: dict[str, Contender] = {}
    for word in (w.strip() for w in methods.split(",") if w.strip()):
        if word in ("all", "main"):
            names = [name for name, curve in curves.items() if not curve.named] if word == "all" else MAIN
            found = [c for name in names for c in built[name]]
        elif word in built:
            found = built[word]
        elif word in every:
            found = [every[word]]
        elif word in ("plain", "converged", "none"):
            found = []
        else:
            stem = word.rpartition("-")[0]
            points = [c.name for c in built.get(stem, ())]
            if points:
                raise UnknownNameError(
                    f"--methods: there is no '{word}' at {bench.steps} steps (there are {', '.join(points)}); "
                    "--method takes any setting"
                )
            known = ["all", "main", *built]
            raise UnknownNameError(f"--methods: no method '{word}'{suggestion(word, known)}")
        chosen.update({c.name: c for c in found})
    return [*first, *chosen.values()]


def check_methods(methods: str, *, alone: bool) -> None:
    """What can be said before anything is loaded.

    Args:
        alone: nothing else was asked to take part.

    Raises: InputError where nobody would be compared.
    """
    words = {word.strip() for word in methods.split(",") if word.strip()}
    if alone and words <= {"none", "plain", "converged"}:
        raise InputError(
            f"--methods '{methods}' names nobody to compare; leave it out for the usual ones, or name some "
            f"(main, all, {', '.join(list(all_curves())[:4])} ...), or add --method NAME:KEY=VALUE"
        )


def all_curves() -> dict[str, Curve]:
    """Every curve by name, the peers at the end."""
    return dict(CURVES.items()) | {name: Curve(build=peer_curve(name)) for name in PEERS}
