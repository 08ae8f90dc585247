"""What holds exactly for SVT and its wavelets."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ...kernels.wavelets import dual_tree, haar, inverse_dual_tree, inverse_haar
from ...kernels.wavelets.dual_tree import DIRECTIONS
from ..companion import check
from ..svt import ClassBlock, ComplexNetwork, ConvolvedFeedForward, Scattering


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@check("svt", "wavelets put together again are the picture: dual tree and Haar, on sides of 2 to 28", at_most=1e-12)
def round_trip() -> float:
    worst = 0.0
    for size in ((2, 4), (28, 14), (16, 16)):
        x = normal(2, 3, *size)
        worst = max(worst, float((inverse_dual_tree(*dual_tree(x)) - x).abs().max()))
        worst = max(worst, float((inverse_haar(haar(x)) - x).abs().max()))
    return worst


@check("svt", "Haar's wavelets keep the energy of a picture", at_most=1e-12)
def energy() -> float:
    x = normal(2, 3, 8, 12)
    return float((haar(x).square().sum() / x.square().sum() - 1).abs())


@check("svt", "a grating of 2.6 pixels has most energy in the band of that direction (1 if not)", at_most=0)
def directions() -> float:
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    for band, degrees in enumerate(DIRECTIONS):
        across = math.radians(degrees)
        wave = torch.cos(2.4 * (columns * math.sin(across) + rows * math.cos(across)))
        found = dual_tree(wave.double()[None, None])[1].abs().square().mean((0, 1, 3, 4))
        if int(found.argmax()) != band:
            return 1.0
    return 0.0


@check("svt", "with gains of 1 and bands left as they are, scattering changes nothing", at_most=1e-5)
@torch.no_grad()
def identity() -> float:
    part, x = Scattering(16, 2, 12, token_mixing=False), normal(2, 16, 12, 12).float()
    part.gain.fill_(1.0)
    part.over_channels = torch.nn.Identity()  # type: ignore[assignment]
    return float((part(x) - x).abs().max())


@check("svt", "the network over channels is two complex matrices that are diagonal in blocks", at_most=1e-6)
@torch.no_grad()
def blocks() -> float:
    torch.manual_seed(0)
    network = ComplexNetwork(3, 4)
    for part in network.parameters():
        part.normal_()
    z = torch.randn(5, 12, dtype=torch.complex64)

    def full(weight: Tensor) -> Tensor:
        return torch.block_diag(*torch.complex(weight[0], weight[1]))

    hidden = z @ full(network.weight1) + torch.complex(*network.bias1).flatten()
    hidden = torch.complex(hidden.real.relu(), hidden.imag.relu())
    expected = hidden @ full(network.weight2) + torch.complex(*network.bias2).flatten()
    error = (network(z.unflatten(-1, (3, 4))).flatten(-2) - expected).abs().max()
    return float(error / expected.abs().max())


@check("svt", "the feed-forward network is transformers' PVT v2's, with its weights", at_most=1e-12)
@torch.no_grad()
def feed_forward() -> float:
    from transformers import PvtV2Config
    from transformers.models.pvt_v2.modeling_pvt_v2 import PvtV2ConvFeedForwardNetwork

    torch.manual_seed(0)
    theirs = PvtV2ConvFeedForwardNetwork(PvtV2Config(), 6, 12).double().eval()
    ours, x = ConvolvedFeedForward(6, 12).double(), normal(2, 6, 5, 7)
    weights = theirs.state_dict()
    for mine, name in ((ours.up, "dense1"), (ours.neighbours, "dwconv.dwconv"), (ours.down, "dense2")):
        mine.load_state_dict(
            {"weight": weights[f"{name}.weight"].view_as(mine.weight), "bias": weights[f"{name}.bias"]}
        )
    expected = theirs(x.flatten(2).mT, 5, 7).mT.unflatten(2, (5, 7))
    return float((ours(x) - expected).abs().max())


@check("svt", "the asking token is torch's attention with one query, and the others pass unchanged", at_most=1e-12)
@torch.no_grad()
def asking() -> float:
    torch.manual_seed(0)
    block, x = ClassBlock(8, 2, 2).double(), normal(2, 5, 8)
    mean = x.mean(1, keepdim=True)
    normed = block.norm1(torch.cat([mean, x], 1))
    part = block.attention
    found, _ = F.multi_head_attention_forward(
        normed[:, :1].transpose(0, 1), normed.transpose(0, 1), normed.transpose(0, 1), 8, 2,
        torch.cat([part.query.weight, part.key_value.weight]), torch.cat([part.query.bias, part.key_value.bias]),
        None, None, False, 0.0, part.out.weight, part.out.bias,
    )  # fmt: skip
    asked = mean + found.transpose(0, 1)
    expected = torch.cat([asked + block.feed_forward(block.norm2(asked)), x], 1)
    return float((block(x) - expected).abs().max())
