"""What is remembered of DLGSANet."""

from __future__ import annotations

from ..remember import case, given

case("dlgsanet", "the toy")(lambda: given("dlgsanet"))
case("dlgsanet", "two groups of two blocks, scale 3, a filter of 5 pixels")(
    lambda: given("dlgsanet", groups=2, blocks=2, scale=3, kernel=5)
)
case("dlgsanet", "tiles")(lambda: given("dlgsanet", tile=5))
case("dlgsanet", "softmax")(lambda: given("dlgsanet", normaliser="softmax"))
