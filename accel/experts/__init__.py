"""From a dense diffusion transformer to a mixture of experts and of blocks (Dense2MoE), exact before it is trained."""

from . import kinds as kinds  # registers how each class keeps its matrices
from .block_mixture import MixedGroup
from .convert import conversion_of, convert
from .feed_forward import ExpertFeedForward, find_experts, set_active
from .importance import output_change, random_importance, taylor_importance, weight_importance
from .layout import Layout
from .settings import BlockGroup, Conversion, Experts, Modulation
from .sites import SITE_KINDS, Site, SiteKind, find_sites

__all__ = [
    "SITE_KINDS",
    "BlockGroup",
    "Conversion",
    "ExpertFeedForward",
    "Experts",
    "Layout",
    "MixedGroup",
    "Modulation",
    "Site",
    "SiteKind",
    "conversion_of",
    "convert",
    "find_experts",
    "find_sites",
    "output_change",
    "random_importance",
    "set_active",
    "taylor_importance",
    "weight_importance",
]
