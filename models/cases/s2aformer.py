"""What is remembered of S2AFormer."""

from __future__ import annotations

from ..remember import case, given

case("s2aformer", "the toy")(lambda: given("s2aformer"))
case("s2aformer", "two channels a head for keys")(lambda: given("s2aformer", key_width=2, expansion=2))
