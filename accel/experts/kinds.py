"""The feed-forward layers of diffusers' transformers, as data: one entry a way of keeping the matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ...errors import UnsupportedModelError
from .dense import Dense
from .fused import FusedInput, FusedOutput, One, Twice
from .sites import SITE_KINDS, Pick, SiteKind


def _bias(linear: nn.Linear, pick: Pick) -> Tensor | None:
    return None if linear.bias is None else pick(linear.bias)


def _halves(linear: nn.Linear, pick: Pick, first: int = 0) -> list[tuple[Tensor, Tensor | None]]:
    # Rows from `first` on, cut in two: a value and its gate, in the order of the class.
    weight, bias = pick(linear.weight)[first:], _bias(linear, pick)
    biases = (None, None) if bias is None else bias[first:].chunk(2)
    return list(zip(weight.chunk(2), biases, strict=True))


def _activation(module: nn.Module) -> str:
    name = type(module).__name__
    if name in ("GELU", "GEGLU"):
        return "gelu_tanh" if getattr(module, "approximate", "none") == "tanh" else "gelu"
    if name == "SiLU" or isinstance(getattr(module, "activation", None), nn.SiLU):
        return "silu"
    raise UnsupportedModelError(f"a feed-forward layer with the activation {name} cannot be split into experts")


def _gated(
    gate: tuple[Tensor, Tensor | None],
    up: tuple[Tensor, Tensor | None],
    down: Tensor,
    bias: Tensor | None,
    activation: str = "silu",
) -> Dense:
    return Dense(
        activation=activation,
        up_HD=up[0],
        down_OH=down,
        gate_HD=gate[0],
        up_bias_H=up[1],
        gate_bias_H=gate[1],
        bias_O=bias,
    )


def _feed_forward(module: Any, pick: Pick) -> Dense:
    dropped = max((part.p for part in module.net if isinstance(part, nn.Dropout)), default=0.0)
    if dropped:
        raise UnsupportedModelError(
            f"a feed-forward layer drops out {dropped:g} of its hidden units in training, which experts do not"
        )
    inner, outer = module.net[0], module.net[2]
    down, bias, activation = pick(outer.weight), _bias(outer, pick), _activation(inner)
    if type(inner).__name__ in ("SwiGLU", "GEGLU"):
        up, gate = _halves(inner.proj, pick)
        return _gated(gate, up, down, bias, activation)
    return Dense(
        activation=activation,
        up_HD=pick(inner.proj.weight),
        down_OH=down,
        up_bias_H=_bias(inner.proj, pick),
        bias_O=bias,
    )


def _three(gate: str, up: str, down: str) -> Callable[[Any, Pick], Dense]:
    def read(module: Any, pick: Pick) -> Dense:
        g, u, d = (getattr(module, name) for name in (gate, up, down))
        gate_part, up_part = ((pick(linear.weight), _bias(linear, pick)) for linear in (g, u))
        return _gated(gate_part, up_part, pick(d.weight), _bias(d, pick))

    return read


def _flux2(module: Any, pick: Pick) -> Dense:
    gate, up = _halves(module.linear_in, pick)
    return _gated(gate, up, pick(module.linear_out.weight), _bias(module.linear_out, pick))


def _attention_columns(projection: nn.Linear, hidden: int) -> int:
    return projection.in_features - hidden


def _single(block: Any, pick: Pick) -> Dense:
    columns = _attention_columns(block.proj_out, block.proj_mlp.out_features)
    return Dense(
        activation=_activation(block.act_mlp),
        up_HD=pick(block.proj_mlp.weight),
        down_OH=pick(block.proj_out.weight)[:, columns:],
        up_bias_H=_bias(block.proj_mlp, pick),
        bias_O=_bias(block.proj_out, pick),
    )


def _fuse_single(block: Any, experts: nn.Module) -> None:
    columns = _attention_columns(block.proj_out, block.proj_mlp.out_features)
    block.proj_out = FusedOutput(block.proj_out, columns, experts)
    block.proj_mlp, block.act_mlp = nn.Identity(), nn.Identity()


def _gated_single(block: Any, pick: Pick) -> Dense:
    up, gate = _halves(block.proj_mlp, pick)
    columns = _attention_columns(block.proj_out, block.mlp_hidden_dim)
    down = pick(block.proj_out.weight)[:, columns:]
    return _gated(gate, up, down, _bias(block.proj_out, pick), _activation(block.act_mlp))


def _fuse_gated_single(block: Any, experts: nn.Module) -> None:
    columns = _attention_columns(block.proj_out, block.mlp_hidden_dim)
    block.mlp_hidden_dim = block.proj_mlp.in_features
    block.proj_out = FusedOutput(block.proj_out, columns, experts)
    block.proj_mlp, block.act_mlp = Twice(), One()


def _parallel(attn: Any, pick: Pick) -> Dense:
    gate, up = _halves(attn.to_qkv_mlp_proj, pick, 3 * attn.inner_dim)
    return _gated(gate, up, pick(attn.to_out.weight)[:, attn.inner_dim :], _bias(attn.to_out, pick))


def _fuse_parallel(attn: Any, experts: nn.Module) -> None:
    # The processor cuts what is projected in by these two numbers: behind queries, keys and values now comes the input.
    attn.mlp_hidden_dim, attn.mlp_mult_factor = attn.to_qkv_mlp_proj.in_features, 1
    attn.to_out = FusedOutput(attn.to_out, attn.inner_dim, experts)
    attn.to_qkv_mlp_proj = FusedInput(attn.to_qkv_mlp_proj, 3 * attn.inner_dim)
    attn.mlp_act_fn = nn.Identity()


SITE_KINDS.add("diffusers' feed-forward", SiteKind(classes=("FeedForward",), children=("net",), read=_feed_forward))
SITE_KINDS.add(
    "Z-Image's feed-forward",
    SiteKind(classes=("FeedForward",), children=("w1", "w2", "w3"), read=_three("w1", "w3", "w2")),
)
SITE_KINDS.add(
    "Lumina's feed-forward",
    SiteKind(
        classes=("LuminaFeedForward",),
        children=("linear_1", "linear_2", "linear_3"),
        read=_three("linear_1", "linear_3", "linear_2"),
    ),
)
SITE_KINDS.add(
    "AuraFlow's feed-forward",
    SiteKind(
        classes=("AuraFlowFeedForward",),
        children=("linear_1", "linear_2", "out_projection"),
        read=_three("linear_1", "linear_2", "out_projection"),
    ),
)
SITE_KINDS.add(
    "FLUX.2's feed-forward",
    SiteKind(classes=("Flux2FeedForward",), children=("linear_in", "linear_out"), read=_flux2),
)
SITE_KINDS.add(
    "single-stream block",
    SiteKind(
        classes=(
            "FluxSingleTransformerBlock",
            "BriaSingleTransformerBlock",
            "LongCatImageSingleTransformerBlock",
            "ChromaSingleTransformerBlock",
            "HunyuanVideoSingleTransformerBlock",
            "HunyuanVideoTokenReplaceSingleTransformerBlock",
            "HunyuanImageSingleTransformerBlock",
        ),
        children=("proj_mlp", "act_mlp", "proj_out"),
        read=_single,
        fuse=_fuse_single,
    ),
)
SITE_KINDS.add(
    "gated single-stream block",
    SiteKind(
        classes=("OvisImageSingleTransformerBlock",),
        children=("proj_mlp", "act_mlp", "proj_out"),
        read=_gated_single,
        fuse=_fuse_gated_single,
    ),
)
SITE_KINDS.add(
    "FLUX.2's parallel attention",
    SiteKind(
        classes=("Flux2ParallelSelfAttention",),
        children=("to_qkv_mlp_proj", "to_out"),
        read=_parallel,
        fuse=_fuse_parallel,
    ),
)
