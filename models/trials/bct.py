"""BCT in small: an encoder that names digits, compressed after its training."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..bct import BlockwiseConfig, blockwise
from ..layers.pictures import into_patches
from .digits import TEST, digits, teach_digits
from .trial import Trial

STEPS, WIDTH, BITS = 250, 64, 4


class DigitEncoder(nn.Module):
    """Two layers of torch's encoder on patches of 2 x 2."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 2 * WIDTH, 0.0, "gelu", batch_first=True)
        self.embed, self.head = nn.Linear(4, WIDTH), nn.Linear(WIDTH, 10)
        self.positions = nn.Parameter(torch.randn(1, 16, WIDTH) * 0.02)
        self.encoder: nn.Module = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(into_patches(x_BCYX, 2)) + self.positions).mean(1))


@functools.cache
def trained(seed: int) -> DigitEncoder:
    """The model that all arms of a seed compress."""
    torch.manual_seed(seed)
    model = DigitEncoder()
    teach_digits(model, seed, steps=STEPS)
    return model


def loss_of(seed: int, config: BlockwiseConfig | None) -> float:
    """Nats a held-out digit, with the encoder in codes or as it is."""
    model, (pictures, classes) = trained(seed), digits()
    exact = model.encoder
    assert isinstance(exact, nn.TransformerEncoder)
    try:
        model.encoder = exact if config is None else blockwise(exact, config)
        with torch.no_grad():
            return float(F.cross_entropy(model(pictures[:TEST]), classes[:TEST]))
    finally:
        model.encoder = exact


def arm(block: int | None) -> Callable[[int], float]:
    """Compressing with blocks of one length."""
    return lambda seed: loss_of(seed, BlockwiseConfig(weight_bits=BITS, input_bits=8, block=block))


TRIAL = Trial(
    claim="a shift for every block costs less accuracy than one for a whole tensor, without training again",
    measure=f"loss on held-out digits, weights in {BITS} bits, nats",
    higher_is_better=False,
    arms={"blocks of 16": arm(16), "a tensor": arm(None), "blocks of 64": arm(64), "exact": lambda s: loss_of(s, None)},
    against=("a tensor",),
    task=f"digits as 16 patches, 2 encoder layers of width {WIDTH}, {STEPS} steps of 64; inputs in 8 bits",
)
