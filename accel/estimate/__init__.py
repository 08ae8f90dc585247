"""What a model costs and what can be gained on it, from configurations alone: no weights, no network."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .account import Account
from .models import MODELS, Model

if TYPE_CHECKING:
    from .cost import Cost as Cost
    from .cost import break_even as break_even
    from .cost import count_cost as count_cost
    from .cost import even_share as even_share
    from .cost import worthwhile as worthwhile
    from .counting import flops as flops
    from .devices import DEVICES as DEVICES
    from .devices import Device as Device
    from .devices import find_device as find_device
    from .predict import Estimate as Estimate
    from .predict import estimate as estimate
    from .signature import SIGNATURES as SIGNATURES

_HOME = {
    "DEVICES": ".devices",
    "Cost": ".cost",
    "Device": ".devices",
    "Estimate": ".predict",
    "SIGNATURES": ".signature",
    "break_even": ".cost",
    "count_cost": ".cost",
    "estimate": ".predict",
    "even_share": ".cost",
    "find_device": ".devices",
    "flops": ".counting",
    "worthwhile": ".cost",
}

__all__ = [
    "DEVICES",
    "MODELS",
    "SIGNATURES",
    "Account",
    "Cost",
    "Device",
    "Estimate",
    "Model",
    "break_even",
    "count_cost",
    "estimate",
    "even_share",
    "find_device",
    "flops",
    "worthwhile",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'outpace.accel.estimate' has no attribute '{name}'")
    if name == "SIGNATURES":
        import_module(".calls", __name__)  # registers how each class is called
    return getattr(import_module(_HOME[name], __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
