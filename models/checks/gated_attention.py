"""What holds exactly for gated attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..companion import check
from ..layers.attention import AttentionConfig, SoftmaxAttention
from .hybrid import leaked, model_of, streamed


def layer(gate: str, **changes: object) -> SoftmaxAttention:
    torch.manual_seed(0)
    config = AttentionConfig(heads=4, gate=gate, **changes)  # pyright: ignore[reportArgumentType]
    return SoftmaxAttention(32, config).double()


def inputs() -> Tensor:
    return torch.randn(2, 20, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@check("gated_attention", "gates that are open are plain attention", at_most=1e-12)
@torch.no_grad()
def opened() -> float:
    plain = layer("none")
    worst = 0.0
    for gate in ("channel", "head"):
        gated = layer(gate)
        gated.load_state_dict(plain.state_dict(), strict=False)
        gated.gate = nn.Linear(32, 32 if gate == "channel" else 4).double()
        nn.init.zeros_(gated.gate.weight)
        nn.init.constant_(gated.gate.bias, 60.0)
        worst = max(worst, float((gated(inputs())[0] - plain(inputs())[0]).abs().max()))
    return worst


@check("gated_attention", "a gate a head is a gate a channel with repeated rows", at_most=1e-12)
@torch.no_grad()
def repeated() -> float:
    head, channel = layer("head"), layer("channel")
    assert head.gate is not None
    weights = head.state_dict()
    weights["gate.weight"] = head.gate.weight.repeat_interleave(8, 0)
    channel.load_state_dict(weights)
    return float((head(inputs())[0] - channel(inputs())[0]).abs().max())


@check("gated_attention", "the gate stands before the last matrix: out(sigmoid(G x) * heads)", at_most=1e-12)
@torch.no_grad()
def placed() -> float:
    gated, plain = layer("channel"), layer("none")
    plain.load_state_dict({k: v for k, v in gated.state_dict().items() if k != "gate.weight"})
    assert gated.gate is not None
    plain.out = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    expected = gated.out(plain(inputs())[0] * gated.gate(inputs()).sigmoid())
    return float((gated(inputs())[0] - expected).abs().max())


@check("gated_attention", "with copied weights it is the gated attention of transformers' Qwen3-Next", at_most=1e-6)
@torch.no_grad()
def qwen() -> float:
    from transformers.models.qwen3_next import modeling_qwen3_next as theirs
    from transformers.models.qwen3_next.configuration_qwen3_next import Qwen3NextConfig

    torch.manual_seed(0)
    rope = {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 1.0}
    config = Qwen3NextConfig(
        hidden_size=32, num_attention_heads=4, num_key_value_heads=2, head_dim=8, num_hidden_layers=1,
        rope_parameters=rope, layer_types=["full_attention"],
    )  # fmt: skip
    config._attn_implementation = "eager"
    attention = theirs.Qwen3NextAttention(config, layer_idx=0).eval()
    ours = SoftmaxAttention(32, AttentionConfig(heads=4, key_heads=2, gate="channel", query_key_norm=True))
    for norm in (attention.q_norm, attention.k_norm):
        nn.init.normal_(norm.weight, std=0.3)
    query, gate = attention.q_proj.weight.view(4, 2, 8, 32).unbind(1)
    ours.load_state_dict(
        {
            "query.weight": query.reshape(32, 32),
            "gate.weight": gate.reshape(32, 32),
            "key.weight": attention.k_proj.weight,
            "value.weight": attention.v_proj.weight,
            "out.weight": attention.o_proj.weight,
            "query_norm.weight": 1 + attention.q_norm.weight,
            "key_norm.weight": 1 + attention.k_norm.weight,
        }
    )
    x = inputs().float()
    positions = theirs.Qwen3NextRotaryEmbedding(config)(x, torch.arange(20)[None])
    mask = torch.full((20, 20), -torch.inf).triu(1)[None, None]
    return float((ours(x)[0] - attention(x, positions, mask)[0]).abs().max())


@check("gated_attention", "the model reads in pieces as at once, and is causal, in float64", at_most=1e-12)
def decoding() -> float:
    return max(
        max(streamed(model_of("full", "full", gate=gate)), leaked(model_of("full", gate=gate)))
        for gate in ("channel", "head")
    )
