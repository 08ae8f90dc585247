"""Companion models: papers that are not about diffusion, on the same kernels.

`MODELS` has a card for each; `outpace models` lists, shows, checks and tries them.
"""

from . import (
    activator,
    craft,
    crate,
    dlgsanet,
    gam,
    gated_attention,
    gla,
    hornet,
    hybrid,
    maxim,
    moat,
    mosaic_bert,
    ninformer,
    predformer,
    quantizable,
    spark,
    survey,
    swin,
    vig,
    widenet,
)
from .companion import MODELS, Check, Companion, Size, check, checks_of, count_parameters, trial_of

__all__ = [
    "MODELS",
    "Check",
    "Companion",
    "Size",
    "activator",
    "check",
    "checks_of",
    "count_parameters",
    "craft",
    "crate",
    "dlgsanet",
    "gam",
    "gated_attention",
    "gla",
    "hornet",
    "hybrid",
    "maxim",
    "moat",
    "mosaic_bert",
    "ninformer",
    "predformer",
    "quantizable",
    "spark",
    "survey",
    "swin",
    "trial_of",
    "vig",
    "widenet",
]
