"""What is remembered of Swin."""

from __future__ import annotations

from ..remember import case, given

case("swin", "the toy, logits", near=1e-6)(lambda: given("swin").logits)
