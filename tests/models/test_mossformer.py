"""MossFormer: the published code with the same weights, the kernel on shapes drawn at random, and bad input."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from outpace.errors import ConfigError
from outpace.kernels.attention.local_global import local_global_attention, reference_local_global_attention
from outpace.models import load_published, mossformer
from outpace.models.layers.separation import in_best_order
from outpace.models.mossformer import Mossformer, MossformerConfig, by_our_names
from outpace.models.mossformer2 import Mossformer2Config, build_mossformer2
from outpace.models.trials.voices import mixtures, voices
from outpace.weights import LAYOUTS

torch.set_num_threads(1)
quick = settings(max_examples=15, deadline=None, database=None, derandomize=True)
SIZES = {"width": 16, "blocks": 2, "dropout": 0.0}
"""Of a small model; group, width of keys and of the memory are the published code's own, which it does not vary."""


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@quick
@given(
    seed=st.integers(0, 99), tokens=st.integers(1, 30), group=st.integers(1, 12), over_all=st.booleans(),
    widths=st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5)),
)  # fmt: skip
def test_attention_equals_its_formula(
    seed: int, tokens: int, group: int, over_all: bool, widths: tuple[int, int, int]
) -> None:
    q, k = (normal(seed + i, 2, tokens, widths[0]) for i in range(2))
    v, state = normal(seed + 2, 2, tokens, widths[2]), {}
    if over_all:
        state = {name: normal(seed + 3 + i, 2, tokens, widths[1]) for i, name in enumerate(("q_global", "k_global"))}
    out = local_global_attention(q, k, v, group=group, **state)
    expected = reference_local_global_attention(q, k, v, group=group, **state)
    torch.testing.assert_close(out.double(), expected, rtol=1e-4, atol=2e-5)


def test_gradients_are_those_of_the_formula() -> None:
    parts = [normal(i, 1, 7, 3).double().requires_grad_() for i in range(5)]

    def attention(q: Tensor, k: Tensor, v: Tensor, q_global: Tensor, k_global: Tensor) -> Tensor:
        return local_global_attention(q, k, v, group=3, q_global=q_global, k_global=k_global)

    assert torch.autograd.gradcheck(attention, parts)


def test_bad_input_ends_in_one_clear_error() -> None:
    x = torch.zeros(2, 8, 4)
    with pytest.raises(ConfigError, match="both q_global and k_global"):
        local_global_attention(x, x, x, group=4, q_global=x)
    with pytest.raises(ConfigError, match="have one shape"):
        local_global_attention(x, x[:, :4], x, group=4)
    with pytest.raises(ConfigError, match="one batch"):
        local_global_attention(x, x, x[:1], group=4)
    with pytest.raises(ConfigError, match="floating-point type"):
        local_global_attention(x, x, x.double(), group=4)
    with pytest.raises(ConfigError, match="at least 1 token"):
        local_global_attention(x, x, x, group=0)
    with pytest.raises(ConfigError, match="an odd filter"):
        MossformerConfig(filter=4)
    with pytest.raises(ConfigError, match="width over halves"):
        Mossformer2Config(width=15)
    with pytest.raises(ConfigError, match="order of Mossformer2Config must be at least 1"):
        Mossformer2Config(order=0)
    model = Mossformer(MossformerConfig(**SIZES))
    with pytest.raises(ConfigError, match="a mixture has the shape"):
        model(torch.zeros(1, 1, 100))
    with pytest.raises(ConfigError, match="of another model or size"):
        load_published(model, {"enc.conv1d.weight": torch.zeros(3)})
    with pytest.raises(ConfigError, match="at most 6 sources"):
        in_best_order(torch.zeros(1, 7, 9), torch.zeros(1, 7, 9))


def clearvoice() -> Any:
    """The published model's module, without what the rest of its package needs; skips where it is not installed."""
    spec = find_spec("clearvoice")
    if spec is None or spec.origin is None or not (find_spec("einops") and find_spec("rotary_embedding_torch")):
        pytest.skip("make parity")
    package, summary = ModuleType("published_mossformer"), ModuleType("torchinfo")
    package.__path__ = [str(Path(spec.origin).parent / "models" / "mossformer2_ss")]
    summary.__dict__["summary"] = None  # imported there and not used
    sys.modules.setdefault(package.__name__, package)
    sys.modules.setdefault("torchinfo", summary)
    return import_module("published_mossformer.mossformer2")


@pytest.mark.parametrize("memory", [False, True])
@torch.no_grad()
def test_it_is_the_published_code_with_its_weights(memory: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    published = clearvoice()
    if not memory:
        monkeypatch.setattr(published, "MossFormerM", published.MossFormerM2)
    torch.manual_seed(0)
    theirs = published.MossFormer(in_channels=16, out_channels=16, num_blocks=2, num_spks=3).eval()
    for parameter in theirs.parameters():
        if parameter.requires_grad:
            parameter.add_(0.3 * torch.randn_like(parameter))
    config = Mossformer2Config(speakers=3, **SIZES) if memory else MossformerConfig(speakers=3, **SIZES)
    ours = (build_mossformer2(config) if isinstance(config, Mossformer2Config) else Mossformer(config)).eval()
    load_published(ours, theirs.state_dict())
    mixture = normal(1, 2, 16 + 8 * 299)  # 300 frames: the second group is not full
    expected = torch.stack(theirs(mixture), 1)
    assert float(expected.std()) > 0.01
    torch.testing.assert_close(ours(mixture), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_voices_are_of_one_loudness_and_of_the_kinds_that_there_are() -> None:
    sound = voices(3, 400, 4000, "low", torch.Generator().manual_seed(0))
    assert sound.shape == (3, 400) and float(sound.mean(-1).abs().max()) < 1e-5
    torch.testing.assert_close(sound.std(-1), torch.ones(3))
    mixture, parts = mixtures(2, 400, 4000, torch.Generator().manual_seed(0))
    assert torch.equal(mixture, parts.sum(1))
    with pytest.raises(ConfigError, match="voices are low or high"):
        voices(1, 400, 4000, "middle", torch.Generator())


def test_names_of_published_weights_are_ours_one_by_one() -> None:
    block, memory = "mask_net.mdl.intra_mdl.mossformerM.layers.1", "mask_net.mdl.intra_mdl.mossformerM.fsmn.0"
    names = {
        "enc.conv1d.weight": "encode.weight",
        "dec.weight": "decode.weight",
        "mask_net.norm.bias": "norm.bias",
        "mask_net.conv1d_encoder.weight": "reduce.weight",
        "mask_net.pos_enc.scale": "position_scale",
        "mask_net.mdl.intra_norm.weight": "skip_norm.weight",
        "mask_net.mdl.intra_mdl.norm.weight": "block_norm.weight",
        "mask_net.prelu.weight": "activation.weight",
        "mask_net.conv1d_out.bias": "split.bias",
        "mask_net.output.0.weight": "out.weight",
        "mask_net.output_gate.0.weight": "out_gate.weight",
        "mask_net.conv1_decoder.weight": "expand.weight",
        f"{block}.to_hidden.mdl.0.g": "blocks.2.values.norm.length",
        f"{block}.to_qk.mdl.1.weight": "blocks.2.key.linear.weight",
        f"{block}.to_out.mdl.3.sequential.1.conv.weight": "blocks.2.out.neighbours.weight",
        f"{block}.qk_offset_scale.gamma": "blocks.2.gains",
        f"{block}.qk_offset_scale.beta": "blocks.2.offsets",
        f"{block}.rotary_pos_emb.freqs": "blocks.2.frequencies",
        f"{memory}.gated_fsmn.fsmn.conv.conv1.weight": "blocks.1.memory.filters.0.weight",
        f"{memory}.gated_fsmn.fsmn.conv.norm2.bias": "blocks.1.memory.norms.1.bias",
        f"{memory}.gated_fsmn.fsmn.conv.prelu2.weight": "blocks.1.memory.activations.1.weight",
        f"{memory}.gated_fsmn.fsmn.linear.weight": "blocks.1.memory.linear.weight",
        f"{memory}.gated_fsmn.to_u.mdl.1.bias": "blocks.1.u.linear.bias",
        f"{memory}.conv1.0.weight": "blocks.1.reduce.weight",
        f"{memory}.conv1.1.weight": "blocks.1.activation.weight",
        f"{memory}.conv2.weight": "blocks.1.expand.weight",
        "mask_net.pos_enc.inv_freq": "",
    }
    weights = {name: torch.tensor([float(i)]) for i, name in enumerate(names)}
    expected = {ours: torch.tensor([float(i)]) for i, ours in enumerate(names.values()) if ours}
    assert by_our_names(weights) == expected
    assert LAYOUTS[Mossformer](weights, Mossformer(MossformerConfig(**SIZES))) == expected


def test_places_are_told_in_float32_at_least() -> None:
    half = torch.zeros((), dtype=torch.bfloat16)
    told = mossformer._positions(400, 8, half)
    assert told.dtype == torch.bfloat16  # in bfloat16 itself, 257 would be 256
    assert float((told.double() - mossformer._positions(400, 8, half.double())).abs().max()) < 2**-7
