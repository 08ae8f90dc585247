"""Weights as papers' own code has published them, put into models of ours; one file a layout.

    model = create("hornet", "tiny")
    load_published(model, torch.load("hornet_tiny_7x7.pth")["model"])

`LAYOUTS` has a function for each; cards say what a model must be created with so that it is theirs.
"""

from ...weights import LAYOUTS, load_published
from . import (
    crate,
    dlgsanet_craft,
    fla,
    hornet,
    maxim,
    moat,
    mosaic_bert,
    mossformer,
    predformer,
    styleswin,
    svt,
    swin,
    vig,
)

__all__ = [
    "LAYOUTS",
    "crate",
    "dlgsanet_craft",
    "fla",
    "hornet",
    "load_published",
    "maxim",
    "moat",
    "mosaic_bert",
    "mossformer",
    "predformer",
    "styleswin",
    "svt",
    "swin",
    "vig",
]
