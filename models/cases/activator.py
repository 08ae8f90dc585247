"""What is remembered of Activator."""

from __future__ import annotations

from ..remember import case, given, thinned

case("activator", "the toy")(lambda: given("activator"))
case("activator", "where it drops in training")(lambda: thinned("activator"))
case("activator", "gated units only")(lambda: given("activator", feed_forward=False))
