"""Block outputs, and the loss that compares them."""

from __future__ import annotations

import pytest
import torch
from dense_models import build, middle, run

from outpace.accel.experts import Conversion, Experts, block_outputs, convert, feature_loss, group_ends
from outpace.errors import ConfigError


def test_outputs_of_every_block_are_collected_in_order() -> None:
    dense = build("FluxTransformer2DModel")
    with block_outputs(dense) as outputs:
        run(dense)
    assert [tuple(output.shape) for output in outputs] == [(3, 16, 16)] * 5
    assert not any(block._forward_hooks for block in dense.transformer_blocks)
    model = convert(dense, Conversion(groups=(middle(dense),)))
    assert group_ends(model) == [3]


def test_every_block_counts_as_the_output_does() -> None:
    teacher = [torch.ones(2, 3), torch.full((2, 3), 2.0)]
    student = [wanted + 0.1 * (place + 1) for place, wanted in enumerate(teacher)]
    loss = feature_loss(torch.tensor(0.5), teacher, student)
    # Weighted, a block's distance is the output's times the mean norm (1.5) over its own (1 and 2).
    assert float(loss) == pytest.approx(0.5 * 1.5 / 1 + 0.5 * 1.5 / 2)
    with pytest.raises(ConfigError, match="2 block outputs of the teacher cannot be compared with 1"):
        feature_loss(torch.tensor(0.5), teacher, student[:1])


def test_the_loss_pulls_blocks_towards_the_teacher_s() -> None:
    dense = build("DiTTransformer2DModel")
    model = convert(dense, Conversion(experts=Experts(layout="1S4E1A"))).requires_grad_(True)
    with block_outputs(dense) as wanted:
        target = run(dense)
    with block_outputs(model) as given, torch.enable_grad():
        distance = (run(model) - target).square().mean()
        feature_loss(distance, wanted, given).backward()
    before = float(distance)
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
    for weight in model.parameters():
        if weight.grad is not None:
            weight.data -= 0.05 * weight.grad / norm
    assert float((run(model) - target).square().mean()) < before
