"""Presets: for a family, the methods that measurements favour at three levels of care.

The settings come from benchmarks/results (see docs); a family without measurements of its own gets the general ones.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..registry import Registry
from .methods import Method
from .methods.gated_taylor import GatedTaylor
from .methods.solver import Solver


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """Settings by family; "" holds those for every family without its own."""

    summary: str
    by_family: dict[str, tuple[Method, ...]]

    def methods(self, family: str) -> list[Method]:
        return list(self.by_family.get(family, self.by_family[""]))


PRESETS: Registry[Preset] = Registry("preset")

PRESETS.add("careful", Preset(summary="hardly any difference to the eye", by_family={"": (GatedTaylor(threshold=0.05),)}))
PRESETS.add("balanced", Preset(summary="the same picture, sooner", by_family={"": (GatedTaylor(threshold=0.15),)}))
PRESETS.add(
    "fast", Preset(summary="a close picture, soonest", by_family={"": (Solver(), GatedTaylor(threshold=0.4))})
)


def preset_methods(name: str, family: str) -> list[Method]:
    """The methods of preset `name` for `family`. Raises: UnknownNameError."""
    return PRESETS[name].methods(family)
