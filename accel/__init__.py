"""What changes a pipeline: `accelerate`, the methods, the family adapters.

Methods, presets and families are plain data and are here at once, registered and without torch; what runs a pipeline
is imported when it is first touched.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .families import FAMILIES, Family, Stack, find_family, register_family
from .methods import METHODS, Method, settings_help
from .methods.adaspa import AdaSpa
from .methods.brick_skipping import Brick, BrickSkipping
from .methods.exact_reuse import ExactReuse
from .methods.gated_taylor import GatedTaylor
from .methods.interval_taylor import IntervalTaylor
from .methods.scheduled_taylor import ScheduledTaylor
from .methods.solver import Solver
from .methods.static_sparsity import StaticSparsity
from .presets import PRESETS, Preset

if TYPE_CHECKING:
    from .apply import accelerate as accelerate
    from .check import Finding as Finding
    from .check import check_family as check_family
    from .handle import Acceleration as Acceleration
    from .profile import Profile as Profile
    from .restoring import handle_of as handle_of
    from .restoring import restore as restore
    from .trace import Call as Call
    from .trace import Trace as Trace

_HOME = {
    "Acceleration": ".handle",
    "accelerate": ".apply",
    "handle_of": ".restoring",
    "restore": ".restoring",
    "Finding": ".check",
    "check_family": ".check",
    "Profile": ".profile",
    "Call": ".trace",
    "Trace": ".trace",
}

__all__ = [
    "FAMILIES",
    "METHODS",
    "PRESETS",
    "Acceleration",
    "AdaSpa",
    "Brick",
    "BrickSkipping",
    "Call",
    "ExactReuse",
    "Family",
    "Finding",
    "GatedTaylor",
    "IntervalTaylor",
    "Method",
    "Preset",
    "Profile",
    "ScheduledTaylor",
    "Solver",
    "Stack",
    "StaticSparsity",
    "Trace",
    "accelerate",
    "check_family",
    "find_family",
    "handle_of",
    "register_family",
    "restore",
    "settings_help",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name], __name__), name)
    raise AttributeError(f"module 'outpace.accel' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
