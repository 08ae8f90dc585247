"""What is remembered of NiNformer."""

from __future__ import annotations

from ..remember import case, given

case("ninformer", "the toy")(lambda: given("ninformer"))
