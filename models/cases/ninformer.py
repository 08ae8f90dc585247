"""What is remembered of NiNformer."""

from __future__ import annotations

from ..remember import case, given, thinned

case("ninformer", "the toy")(lambda: given("ninformer"))
case("ninformer", "where it drops in training")(lambda: thinned("ninformer"))
