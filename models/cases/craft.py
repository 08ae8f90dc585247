"""What is remembered of CRAFT."""

from __future__ import annotations

from ..remember import case, given

case("craft", "the toy")(lambda: given("craft"))
case("craft", "wide enough for positions, two groups, masked windows, scale 3")(
    lambda: given("craft", width=64, heads=4, groups=2, blocks=2, scale=3, masked=True)
)
case("craft", "positions without a mask")(lambda: given("craft", width=64, heads=4))
case("craft", "without high frequencies")(lambda: given("craft", high_frequencies=False))
