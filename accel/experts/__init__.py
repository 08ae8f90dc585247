"""From a dense diffusion transformer to a mixture of experts and of blocks (Dense2MoE), exact before it is trained."""

from . import kinds as kinds  # registers how each class keeps its matrices
from .active import layers_with_experts, set_active
from .block_choice import choose_blocks, start_blocks
from .block_mixture import MixedGroup, find_groups
from .by_noise import NoiseFeedForward, find_noise_experts
from .convert import conversion_of, convert
from .count import Count, active_parameters, count, parameter_count
from .features import block_outputs, feature_loss, group_ends, held_blocks, held_samples, kept_blocks
from .feed_forward import ExpertFeedForward, find_experts
from .importance import output_change, random_importance, taylor_importance, weight_importance
from .integers import IntegerLinear, find_integers, weight_bytes
from .layout import Layout
from .level_start import start_levels
from .load import load_transformer
from .noise_importance import LevelImportance, level_borders, level_importance
from .pruned import CutFeedForward, block_effects, drop_blocks
from .routing import Routing, watch
from .scheduled import ScheduledBlock, find_scheduled
from .settings import BlockGroup, Conversion, Experts, Integers, LayerExperts, Modulation
from .sites import SITE_KINDS, Site, SiteKind, find_sites
from .spread import spread_experts
from .start import start_experts, start_groups
from .tried import Tried, choose_layout, try_call

__all__ = [
    "SITE_KINDS",
    "BlockGroup",
    "Conversion",
    "Count",
    "CutFeedForward",
    "ExpertFeedForward",
    "Experts",
    "IntegerLinear",
    "Integers",
    "LayerExperts",
    "Layout",
    "LevelImportance",
    "MixedGroup",
    "Modulation",
    "NoiseFeedForward",
    "Routing",
    "ScheduledBlock",
    "Site",
    "SiteKind",
    "Tried",
    "active_parameters",
    "block_effects",
    "block_outputs",
    "choose_blocks",
    "choose_layout",
    "conversion_of",
    "convert",
    "count",
    "drop_blocks",
    "feature_loss",
    "find_experts",
    "find_groups",
    "find_integers",
    "find_noise_experts",
    "find_scheduled",
    "find_sites",
    "group_ends",
    "held_blocks",
    "held_samples",
    "kept_blocks",
    "layers_with_experts",
    "level_borders",
    "level_importance",
    "load_transformer",
    "output_change",
    "parameter_count",
    "random_importance",
    "set_active",
    "spread_experts",
    "start_blocks",
    "start_experts",
    "start_groups",
    "start_levels",
    "taylor_importance",
    "try_call",
    "watch",
    "weight_bytes",
    "weight_importance",
]
