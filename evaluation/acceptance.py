"""Bands that a change must keep: "no picture below 30 dB, LPIPS at most 0.1 in the mean, prompts followed as before".

```toml
contenders = ["gated-0.22"]  # all of these must keep every band; without it, one of ours must

[worst]                      # of all requests, against the plain pipeline
psnr = 30

[mean]
lpips = 0.1

[adherence]
loss = 0.02                  # of what prompts ask for, as a share; the mean over what is checked

[speed]
blocks = 2.0                 # times fewer computed blocks, at least
time = 1.5                   # times as fast, at least
```
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ConfigError, InputError
from ..registry import suggestion
from .contender import KINDS
from .metrics import METRICS

SPEEDS = {"blocks": "speed-up in computed blocks", "time": "speed-up on the clock"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Bands:
    """What is accepted."""

    worst: Mapping[str, float]
    """Metric -> bound that the worst request must keep."""
    mean: Mapping[str, float]
    """Metric -> bound that the mean over requests must keep."""
    loss: float | None
    """Most that the share of obeyed prompts may fall below the plain pipeline's."""
    speed: Mapping[str, float]
    """"blocks" or "time" -> least speed-up."""
    contenders: tuple[str, ...] = ()
    """Who must keep them; empty: at least one of ours."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """One band of one contender."""

    band: str
    """As a person says it: "PSNR of the worst request"."""
    bound: float
    value: float | None
    """None where it was not measured."""
    higher: bool
    """True where the value must be at least the bound."""

    @property
    def kept(self) -> bool:
        if self.value is None or math.isnan(self.value):
            return False
        return self.value >= self.bound if self.higher else self.value <= self.bound

    def __str__(self) -> str:
        asked = f"{'at least' if self.higher else 'at most'} {self.bound:g}"
        found = "not measured here" if self.value is None else f"{self.value:.4g}"
        return f"{self.band}: {found} ({asked}{'' if self.kept else ', missed'})"


@dataclass(frozen=True, kw_only=True, slots=True)
class Accepted:
    """How every contender that is held to the bands stands."""

    rows: Mapping[str, tuple[Kept, ...]]
    """Contender -> its bands."""
    every: bool
    """True where all of them must keep the bands, False where one is enough."""
    fastest: str | None
    """The one that keeps them with the fewest blocks."""

    @property
    def ok(self) -> bool:
        kept = [all(band.kept for band in bands) for bands in self.rows.values()]
        return bool(kept) and (all(kept) if self.every else any(kept))

    def lines(self) -> list[str]:
        """For a person: the verdict, then what was missed and by whom."""
        missed = {name: [b for b in bands if not b.kept] for name, bands in self.rows.items()}
        said = ["Accepted: " + (f"{self.fastest} keeps every band" if self.fastest else "") if self.ok else "Refused"]
        if not self.ok or self.every:
            said += [f"  {name}: {band}" for name, bands in missed.items() for band in bands]
        elif any(missed.values()):
            said.append(f"  {sum(map(bool, missed.values()))} other settings miss a band")
        return said

    def to_dict(self) -> dict[str, Any]:
        return {
            "accepted": self.ok,
            "fastest": self.fastest,
            "contenders": {
                name: [
                    {"band": b.band, "bound": b.bound, "value": b.value, "kept": b.kept, "at_least": b.higher}
                    for b in bands
                ]
                for name, bands in self.rows.items()
            },
        }


def read_bands(held: Mapping[str, Any]) -> Bands:
    """Bands from what a TOML file holds. Raises: ConfigError for a word, metric or bound that means nothing."""
    known = ["contenders", "worst", "mean", "adherence", "speed"]
    for word in held:
        if word not in known:
            raise ConfigError(f"bands: there is no '{word}'{suggestion(word, known)}")
    single = [name for name, metric in METRICS.items() if metric.kind != "set"]
    worst = _bounds("worst", held.get("worst", {}), single)
    mean = _bounds("mean", held.get("mean", {}), list(METRICS))
    loss = _bounds("adherence", held.get("adherence", {}), ["loss"]).get("loss")
    speed = _bounds("speed", held.get("speed", {}), list(SPEEDS))
    contenders = held.get("contenders", [])
    if not isinstance(contenders, list) or not all(isinstance(name, str) for name in contenders):
        raise ConfigError('bands: contenders is a list of names, such as ["gated-0.22"]')
    if not worst and not mean and loss is None and not speed:
        raise ConfigError("bands: nothing is asked for; write for example [worst] and under it psnr = 30")
    return Bands(worst=worst, mean=mean, loss=loss, speed=speed, contenders=tuple(contenders))


def _bounds(section: str, held: Any, known: list[str]) -> dict[str, float]:
    if not isinstance(held, Mapping):
        raise ConfigError(f"bands: [{section}] holds names and numbers, not {held!r}")
    for name, value in held.items():
        if name not in known:
            raise ConfigError(f"bands: [{section}] knows no '{name}'{suggestion(name, known)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ConfigError(f"bands: {name} in [{section}] must be a number, not {value!r}")
    return {name: float(value) for name, value in held.items()}


def accept(results: Mapping[str, Any], bands: Bands) -> Accepted:
    """Hold results of a comparison to `bands`. Raises: InputError for a contender that took no part."""
    entries = {entry["name"]: entry for entry in results["contenders"]}
    for name in bands.contenders:
        if name not in entries:
            raise InputError(f"bands: '{name}' took no part in the comparison{suggestion(name, list(entries))}")
    plain = entries[results["study"]["plain"]]
    names = bands.contenders or tuple(
        name for name, entry in entries.items() if KINDS[entry["kind"]].ours and entry["error"] is None
    )
    rows = {name: bands_of(entries[name], plain, bands) for name in names}
    keeping = [name for name, kept in rows.items() if all(band.kept for band in kept)]
    fastest = max(keeping, key=lambda name: entries[name]["speedup"]["value"], default=None)
    return Accepted(rows=rows, every=bool(bands.contenders), fastest=fastest)


def bands_of(entry: Mapping[str, Any], plain: Mapping[str, Any], bands: Bands) -> tuple[Kept, ...]:
    """Every band as `entry` stands to it; all missed where it failed to run."""
    found = (entry.get("metrics") or {}).get(plain["name"], {})
    kept = []
    for which, word, bounds in (("worst", "of the worst request", bands.worst), ("value", "in the mean", bands.mean)):
        for name, bound in bounds.items():
            metric = METRICS[name]
            value = found.get(name, {}).get(which)
            kept.append(Kept(band=f"{metric.label} {word}", bound=bound, value=value, higher=metric.better == "higher"))
    if bands.loss is not None:
        before, after = obeyed(plain), obeyed(entry)
        lost = None if before is None or after is None else before - after
        kept.append(Kept(band="share of prompts no longer obeyed", bound=bands.loss, value=lost, higher=False))
    for name, bound in bands.speed.items():
        speed: Any = entry.get("speedup") if name == "blocks" else (entry.get("time") or {}).get("wall")
        value = speed["value"] if speed else None
        kept.append(Kept(band=SPEEDS[name], bound=bound, value=value, higher=True))
    return tuple(kept)


def obeyed(entry: Mapping[str, Any]) -> float | None:
    """Mean share of what prompts ask for; None where nothing was checked."""
    checks = entry.get("checks") or {}
    return float(np.mean([check["value"] for check in checks.values()])) if checks else None
