"""The published sizes of LEGO models, by name."""

from __future__ import annotations

from typing import Any

from ...registry import Registry

SIZES: Registry[dict[str, Any]] = Registry("LEGO size")
"""Settings of `LegoTransformer2DModel`: S, L and XL, stacked as PG (small bricks to the image), PR (the image to small
bricks) or U (image, small, image), for pictures of 64 pixels or latents of 32."""

_WIDTHS = {"S": (6, 64), "L": (16, 64), "XL": (16, 72)}
_FIELDS = {4: 2, 16: 8, 32: 2, 64: 2}
"""Pixels of a brick's side, and of the patches that it makes tokens of."""


def _add(name: str, side: int, sizes: tuple[int, ...], depths: tuple[int, ...]) -> None:
    heads, head_width = _WIDTHS[name.split("-")[0]]
    settings = {
        "sample_size": side,
        "in_channels": 3 if side == 64 else 4,
        "brick_sizes": sizes,
        "patch_sizes": tuple(_FIELDS[size] for size in sizes),
        "num_layers": depths,
        "num_attention_heads": heads,
        "attention_head_dim": head_width,
        "num_embeds_ada_norm": 1000,
    }
    SIZES.add(name, settings)


_add("S-PG-64", 64, (4, 16, 64), (2, 4, 6))
_add("S-PR-64", 64, (64, 16, 4), (6, 4, 2))
_add("S-U-64", 64, (64, 16, 4, 16, 64), (6, 4, 2, 4, 6))
_add("L-PG-64", 64, (4, 16, 64), (6, 8, 12))
_add("L-PG-32", 32, (4, 16, 32), (4, 8, 12))
_add("XL-PG-32", 32, (4, 16, 32), (4, 12, 14))
_add("XL-PR-32", 32, (32, 16, 4), (14, 12, 4))
_add("XL-U-32", 32, (32, 16, 4, 16, 32), (14, 10, 4, 10, 14))
