"""What holds exactly for FuseGPT."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..companion import check
from ..fusegpt import FuseConfig, Graft, fuse, importance
from ..hybrid import HybridBlock, HybridLanguageModel
from .hybrid import model_of, tokens


def small() -> HybridLanguageModel:
    model = model_of(*("full",) * 4)
    with torch.no_grad():
        for parameter in model.blocks.parameters():
            parameter.mul_(5)
    return model


@check("fusegpt", "without learning, the fused model is the model without its least important block")
@torch.no_grad()
def dropped() -> float:
    model = small()
    fused, (gone,) = fuse(model, [tokens()], FuseConfig(epochs=0))
    del model.blocks[gone]
    return float((fused(tokens()) - model(tokens())).abs().max())


@check("fusegpt", "a block that adds nothing has importance 0 and is the first to go", at_most=1e-12)
@torch.no_grad()
def nothing() -> float:
    model = small()
    block = model.blocks[2]
    assert isinstance(block, HybridBlock)
    nn.init.zeros_(block.feed_forward.down.weight)
    nn.init.zeros_(block.mixer.get_submodule("out").get_parameter("weight"))
    worth = importance(model, [tokens()])
    return abs(worth[2]) if fuse(model, [tokens()], FuseConfig(epochs=0))[1] == [2] else 1.0


@check("fusegpt", "a graft is W + B A + (C D) * W', and W at first", at_most=1e-12)
@torch.no_grad()
def graft() -> float:
    torch.manual_seed(0)
    W, donor = torch.randn(2, 6, 5, dtype=torch.float64)
    one = Graft(W, donor, 2)
    begun = float((one(W) - W).abs().max())
    for parameter in one.parameters():
        nn.init.normal_(parameter)
    up, down, graft_up, graft_down = one.up_OK, one.down_KD, one.graft_up_OK, one.graft_down_KD
    assert graft_up is not None and graft_down is not None
    expected = W + sum(torch.outer(up[:, k], down[k]) for k in range(2))
    expected = expected + sum(torch.outer(graft_up[:, k], graft_down[k]) for k in range(2)) * donor
    return begun + float((one(W) - expected).abs().max())


@check(
    "fusegpt",
    "folded: two of four blocks less, every other parameter as in a smaller model; the given one is as it was",
)
def folded() -> float:
    model = small()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fused, _ = fuse(model, [tokens()], FuseConfig(share=0.5, group=3, rank=2, epochs=2, rate=1e-3))
    names = set(model_of("full", "full").state_dict())
    kept = all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    return float(set(fused.state_dict()) != names or not kept)


@check("fusegpt", "what is learnt from gets nearer: the group's output, as distributions over channels", at_most=0.9)
def learns() -> float:
    model, batches = small(), [tokens()]

    def output(one: HybridLanguageModel) -> Tensor:
        x = one.tokens(tokens())
        for block in one.blocks:
            x, _ = block(x, None)
        return x.detach().log_softmax(-1)

    def far(config: FuseConfig) -> float:
        torch.manual_seed(0)
        fused = output(fuse(model, batches, config)[0])
        return float(F.kl_div(fused, output(model), log_target=True, reduction="batchmean"))

    return far(FuseConfig(rank=4, epochs=20, rate=1e-3, graft_rate=1e-2)) / far(FuseConfig(epochs=0))
