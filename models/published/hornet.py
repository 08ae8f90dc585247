"""HorNet's weights, as its repository has them."""

from __future__ import annotations

from itertools import accumulate
from re import Match

from ...weights import Weights, layout, renamed
from ..hornet import HorNet

PARTS = {"gnconv.proj_in": "mixer.project", "gnconv.dwconv.dw": "mixer.filter.local",
         "gnconv.dwconv.complex_weight": "mixer.filter.spectrum", "gnconv.dwconv.pre_norm": "mixer.filter.before",
         "gnconv.dwconv.post_norm": "mixer.filter.after", "gnconv.dwconv": "mixer.filter",
         "gnconv.proj_out": "mixer.out", "gnconv.pws": "mixer.mixes", "pwconv1": "feed_forward.0",
         "pwconv2": "feed_forward.2", "gamma1": "scale1", "gamma2": "scale2"}  # fmt: skip


@layout(HorNet)
def hornet(weights: Weights, model: HorNet) -> Weights:
    """Stages lie in a row here: a norm and a convolution, then its blocks."""
    starts = [0, *accumulate(depth + 2 for depth in model.config.depths)]

    def down(found: Match[str]) -> str:
        return f"layers.{starts[int(found[1])] + int(found[2])}."

    def block(found: Match[str]) -> str:
        return f"layers.{starts[int(found[1])] + 2 + int(found[2])}."

    parts = [(rf"\.{theirs.replace('.', chr(92) + '.')}(?=\.|$)", f".{ours}") for theirs, ours in PARTS.items()]
    ends = [(r"^norm\.", "head.0."), (r"^head\.(?=weight|bias)", "head.1.")]
    return renamed(
        weights, [*ends, (r"^downsample_layers\.(\d)\.(\d)\.", down), (r"^stages\.(\d)\.(\d+)\.", block), *parts]
    )
