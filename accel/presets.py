"""Presets: for a family, the methods that measurements favour at three levels of care, and the dial between them.

The three are shares of work, so that they mean the same on every model, number of steps and precision.

The settings come from benchmarks/results (see docs); a family without measurements of its own gets the general ones.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..registry import Registry
from .families import Family
from .methods import Method
from .methods.exact_reuse import ExactReuse
from .methods.gated_taylor import GatedTaylor
from .methods.scheduled_taylor import ScheduledTaylor


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """Settings by family; "" holds those for every family without its own."""

    summary: str
    by_family: dict[str, tuple[Method, ...]]

    def methods(self, family: str) -> list[Method]:
        return list(self.by_family.get(family, self.by_family[""]))


PRESETS: Registry[Preset] = Registry("preset")

PRESETS.add(
    "careful",
    Preset(
        summary="hardly any difference to the eye: 1.6 times fewer blocks",
        by_family={"": (ScheduledTaylor(speedup=1.6),)},
    ),
)
PRESETS.add(
    "balanced",
    Preset(
        summary="the same picture, sooner: 2.2 times fewer blocks",
        by_family={"": (ScheduledTaylor(speedup=2.2),)},
    ),
)
PRESETS.add(
    "fast",
    Preset(
        summary="small differences: 3 times fewer blocks",
        by_family={"": (ScheduledTaylor(speedup=3.0),)},
    ),
)
PRESETS.add(
    "paper",
    Preset(
        summary="CG-Taylor with its authors' settings (arXiv:2508.02240 and its released scripts)",
        by_family={
            "": (GatedTaylor.paper(0.1),),
            "flux": (GatedTaylor.paper(0.13, order=1, warmup=5),),
            "wan": (GatedTaylor.paper(0.36, order=1, gate_order=3, warmup=6),),
            "hunyuan": (GatedTaylor.paper(0.12, order=1, gate_order=2, warmup=6),),
            "dit": (GatedTaylor.paper(0.008, order=1, gate_order=3, warmup=3),),
        },
    ),
)


def dial(speedup: float) -> Method:
    """The method that computes so many times fewer blocks. Raises: ConfigError below 1."""
    return ScheduledTaylor(speedup=speedup)


def preset_methods(name: str, family: str) -> list[Method]:
    """The methods of preset `name` for `family`. Raises: UnknownNameError."""
    return PRESETS[name].methods(family)


def free_methods(family: Family) -> list[Method]:
    """What comes along with a dial or a preset: methods that change no bit of a picture."""
    return [ExactReuse()] if family.constant else []
