"""What is remembered of Block Transformer."""

from __future__ import annotations

from torch import Tensor

from ..block_transformer import pad
from ..numbers import whole_numbers
from ..remember import case, filled_model, given

case("block_transformer", "the toy")(lambda: given("block_transformer"))
case("block_transformer", "other blocks, prefixes, depths and turned channels")(
    lambda: given("block_transformer", block=2, prefixes=3, block_layers=2, token_layers=1, rotary_share=1.0)
)


@case("block_transformer", "what it writes, filled up from the left")
def written() -> list[Tensor]:
    model, tokens = filled_model("block_transformer"), whole_numbers((2, 6), 32)
    filled_up = pad(tokens, 4, 3)
    return [filled_up.double(), model.generate(filled_up, 9).double()]
