"""What a quality means: a share of the work, the same on every pipeline, or a profile that was tuned for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outpace.errors import ConfigError, UnknownNameError
from outpace.registry import suggestion

if TYPE_CHECKING:
    from outpace.accel import Method

TIERS = ("exact", "high", "medium", "low")
"""From what the plain pipeline makes to what is made soonest."""

OWN = "speedup"
"""Stands where a tier would for orders that say a number instead, whatever the number is."""

ALIASES = {
    "lossless": "exact",
    "max": "exact",
    "hd": "high",
    "xhigh": "high",
    "standard": "medium",
}
"""Other words of the API for the same."""


def tier_named(word: str, usual: str) -> str:
    """The tier that a request's quality means; "auto" is the server's usual one.

    Raises: UnknownNameError.
    """
    if word == "auto":
        return usual
    tier = ALIASES.get(word, word)
    if tier not in TIERS:
        raise UnknownNameError(f"no quality '{word}'{suggestion(word, [*TIERS, 'auto', *ALIASES])}")
    return tier


def tiers_of(profiles: tuple[tuple[str, str], ...], speedup: float | None = None) -> dict[str, Method]:
    """The forecast that each tier stands for.

    Args:
        profiles: tiers that a profile stands for: (tier, file).
        speedup: what medium means, in place of 2.2.

    Raises: ConfigError for a profile whose methods take hold of a whole pipeline, not of a sample; InputError.
    """
    from outpace.accel import Profile
    from outpace.accel.presets import dial

    tiers: dict[str, Method] = {
        "exact": dial(1.0),
        "high": dial(1.6),
        "medium": dial(2.2 if speedup is None else speedup),
        "low": dial(3.0),
    }
    for tier, file in profiles:
        methods = Profile.load(file).methods
        if len(methods) != 1 or methods[0].place != "forecast":
            names = ", ".join(method.name for method in methods) or "none"
            raise ConfigError(
                f"the profile {file} has the methods {names}; who shares a batch can have a forecast of their own and "
                "nothing else: tune again for one"
            )
        tiers[tier] = methods[0]
    return tiers


def worded(method: Method) -> str:
    """A tier in words."""
    from outpace.accel.trace import describe

    return describe([method.to_dict()])


def read_profiles(texts: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Tiers and the files of their profiles, from "high=profile.json"; one without a tier is for "medium".

    Raises: UnknownNameError, ConfigError.
    """
    found: dict[str, str] = {}
    for text in texts:
        word, equals, file = text.partition("=")
        tier, file = (tier_named(word.strip(), "medium"), file) if equals else ("medium", text)
        if tier == "exact":
            raise ConfigError("exact is what the plain pipeline makes; give the profile another quality")
        if tier in found:
            raise ConfigError(f"--profile gives {tier} twice; keep one")
        found[tier] = file
    return tuple(found.items())
