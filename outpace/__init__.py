"""outpace makes diffusion transformers run faster and shows honestly what it costs.

    import outpace

    with outpace.accelerate(pipe, outpace.GatedTaylor(threshold=0.1)) as run:
        image = pipe(prompt, num_inference_steps=50).images[0]
    print(run.summary())

Importing it costs milliseconds: torch is imported when something that needs it is first touched.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path as _Path
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if not (_Path(__path__[0]) / "accel").is_dir():
    # A checkout, not an installed wheel: the sub-packages are this folder's siblings (see pyproject.toml).
    __path__.append(str(_Path(__path__[0]).parent))

_HOME = {
    "accelerate": "outpace.accel",
    "handle_of": "outpace.accel",
    "restore": "outpace.accel",
    "AdaSpa": "outpace.accel",
    "BrickSkipping": "outpace.accel",
    "ExactReuse": "outpace.accel",
    "GatedTaylor": "outpace.accel",
    "IntervalTaylor": "outpace.accel",
    "ScheduledTaylor": "outpace.accel",
    "Solver": "outpace.accel",
    "StaticSparsity": "outpace.accel",
    "Profile": "outpace.accel",
    "Family": "outpace.accel",
    "register_family": "outpace.accel",
    "estimate": "outpace.accel.estimate",
    "flops": "outpace.accel.estimate",
    "convert": "outpace.accel.experts",
    "Conversion": "outpace.accel.experts",
    "Experts": "outpace.accel.experts",
    "set_active": "outpace.accel.experts",
    "load_transformer": "outpace.accel.experts",
    "load_pocket": "outpace.pipelines",
    "OutpaceError": "outpace.errors",
}

__all__ = [*_HOME, "__version__"]

if TYPE_CHECKING:
    from outpace.accel import AdaSpa as AdaSpa
    from outpace.accel import BrickSkipping as BrickSkipping
    from outpace.accel import ExactReuse as ExactReuse
    from outpace.accel import Family as Family
    from outpace.accel import GatedTaylor as GatedTaylor
    from outpace.accel import IntervalTaylor as IntervalTaylor
    from outpace.accel import Profile as Profile
    from outpace.accel import ScheduledTaylor as ScheduledTaylor
    from outpace.accel import Solver as Solver
    from outpace.accel import StaticSparsity as StaticSparsity
    from outpace.accel import accelerate as accelerate
    from outpace.accel import handle_of as handle_of
    from outpace.accel import register_family as register_family
    from outpace.accel import restore as restore
    from outpace.accel.estimate import estimate as estimate
    from outpace.accel.estimate import flops as flops
    from outpace.accel.experts import Conversion as Conversion
    from outpace.accel.experts import Experts as Experts
    from outpace.accel.experts import convert as convert
    from outpace.accel.experts import load_transformer as load_transformer
    from outpace.accel.experts import set_active as set_active
    from outpace.errors import OutpaceError as OutpaceError
    from outpace.pipelines import load_pocket as load_pocket


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'outpace' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
