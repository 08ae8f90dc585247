"""What a model costs and what can be gained on it, from configurations alone: no weights, no network."""

from . import calls as calls  # registers the classes
from .account import Account, flops
from .cost import Cost, break_even, count_cost, worthwhile
from .devices import DEVICES, Device, find_device
from .models import MODELS, Model
from .predict import Estimate, estimate
from .signature import SIGNATURES

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
    "find_device",
    "flops",
    "worthwhile",
]
