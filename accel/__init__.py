"""What changes a pipeline: `accelerate`, the methods, the family adapters."""

from .apply import Acceleration, accelerate
from .families import FAMILIES, Family, Stack, find_family, register_family
from .methods import METHODS, Method, settings_help
from .methods.adaspa import AdaSpa
from .methods.brick_skipping import Brick, BrickSkipping
from .methods.gated_taylor import GatedTaylor
from .methods.interval_taylor import IntervalTaylor
from .methods.solver import Solver
from .presets import PRESETS, Preset
from .profile import Profile
from .trace import Call, Trace

__all__ = [
    "FAMILIES",
    "METHODS",
    "PRESETS",
    "Acceleration",
    "AdaSpa",
    "Brick",
    "BrickSkipping",
    "Call",
    "Family",
    "GatedTaylor",
    "IntervalTaylor",
    "Method",
    "Preset",
    "Profile",
    "Solver",
    "Stack",
    "Trace",
    "accelerate",
    "find_family",
    "register_family",
    "settings_help",
]
