"""What is remembered of MossFormer2."""

from __future__ import annotations

from ..remember import case, given

case("mossformer2", "the toy")(lambda: given("mossformer2"))
case("mossformer2", "a memory of three layers")(lambda: given("mossformer2", layers=3, order=2, memory_width=6))
