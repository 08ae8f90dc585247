"""What holds exactly for Swin: our kernels against transformers' own code with the same weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...kernels.attention.windows import relative_bias, window_attention
from ..companion import check
from ..swin import SwinSettings, build_swin

SMALL = SwinSettings(width=12, depths=(2, 2), heads=(3, 6), window=4, picture=32, classes=5)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def small() -> Any:
    torch.manual_seed(0)
    model: Any = build_swin(SMALL).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=1.0 if "relative_position_bias" in name else 0.3)
    return model


@check(
    "swin", "logits are those of transformers' own attention, also of a picture that windows do not fill", at_most=1e-5
)
@torch.no_grad()
def injected() -> float:
    model, worst = small(), 0.0
    for size in ((32, 32), (28, 36)):
        x = normal(2, 3, *size)
        model.set_attn_implementation("outpace_windows")
        ours = model(x).logits
        model.set_attn_implementation("eager")
        worst = max(worst, float((model(x).logits - ours).abs().max()))
    return worst


@check("swin", "the window kernel is transformers' attention in windows and in shifted windows", at_most=1e-5)
@torch.no_grad()
def layer() -> float:
    model, worst, size = small(), 0.0, (8, 8)
    model.set_attn_implementation("eager")
    for block, shift in zip(model.swin.encoder.layers[0].blocks, (0, 2), strict=True):
        x = normal(2, 64, 12)
        expected = block(x, size)
        attention = block.attention
        h = block.layernorm_before(x).unflatten(1, size)
        q, k, v = (part(h).unflatten(-1, (3, 4)) for part in (attention.q_proj, attention.k_proj, attention.v_proj))
        table = attention.relative_position_bias.relative_position_bias_table.T.unflatten(-1, (7, 7))
        out = window_attention(
            q, k, v, window=(4, 4), shift=(shift, shift), bias=relative_bias(table, (4, 4)), scale=attention.scaling
        )
        middle = x + attention.o_proj(out.flatten(-2).flatten(1, 2))
        ours = middle + block.mlp(block.layernorm_after(middle))
        worst = max(worst, float((ours - (expected[0] if isinstance(expected, tuple) else expected)).abs().max()))
    return worst


@check("swin", "two blocks, the second shifted by half a window, see beyond a window's border, one does not (1 if not)")
def reach() -> float:
    model, wrong = small(), 0.0
    stage = model.swin.encoder.layers[0]
    for blocks, beyond in ((1, False), (2, True)):
        x = normal(1, 64, 12).requires_grad_()
        h = x
        for block in stage.blocks[:blocks]:
            h = block(h, (8, 8))
            h = h[0] if isinstance(h, tuple) else h
        h.unflatten(1, (8, 8))[0, 3, 3].sum().backward()
        assert x.grad is not None
        reached = (x.grad.unflatten(1, (8, 8))[0] != 0).any(-1)
        wrong += float(bool(reached[:, 4:].any()) != beyond or not bool(reached[:4, :4].all()))
    return wrong
