"""The curves of the peers: what others hold, at the settings that `outpace.evaluation.peers` gives for them."""

from __future__ import annotations

from typing import Any

from outpace.cli.contenders.bench import Bench
from outpace.cli.contenders.curve import Build
from outpace.evaluation import Contender, Request
from outpace.evaluation.peers import PEERS


def peer_curve(name: str) -> Build:
    """A builder for the contenders of one peer."""

    def build(bench: Bench) -> list[Contender]:
        peer = PEERS[name]
        prepared: dict[str, Any] = {}
        made = []

        def enter(settings: dict[str, Any], requests: list[Request]) -> Any:
            if peer.prepare is not None and not prepared:
                prepared.update(peer.prepare(bench.loaded.pipe, bench.steps, lambda: bench.rehearse(requests[0])))
            return peer.apply(bench.loaded.pipe, **settings, **prepared)

        for settings in peer.settings:
            value = "-".join(f"{v:g}" for v in settings.values())
            words = ", ".join(f"{k} {v:g}" for k, v in settings.items())

            def generate(requests: list[Request], settings: dict[str, Any] = settings) -> Any:
                return bench.within(lambda: enter(settings, requests), requests)

            def timed(requests: list[Request], settings: dict[str, Any] = settings) -> None:
                bench.within(lambda: enter(settings, requests), requests, timed=True)

            made.append(
                Contender(
                    name=f"{name}-{value}",
                    label=f"{peer.label}, {words}",
                    kind="peer",
                    curve=peer.label,
                    steps=bench.steps,
                    settings=dict(settings),
                    batch=peer.batch,
                    generate=generate,
                    timed=timed,
                )
            )
        return made

    return build
