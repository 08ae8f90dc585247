"""What is known about the calling of a transformer class, and of one sample's latents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...registry import Registry

Config = Mapping[str, Any]
Patch = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Latent:
    """One sample as the denoiser gets it, before it is cut into tokens."""

    frames: int
    """T: latent frames; 1 for pictures."""
    height: int
    """Y: latent rows."""
    width: int
    """X: latent columns."""
    text: int
    """Text tokens."""
    patch: Patch
    """Latent frames, rows and columns that make one token."""
    time_per_token: bool = False
    """True where every token has a time of its own (Wan 2.2 5B)."""

    @property
    def grid(self) -> Patch:
        """Tokens along frames, rows and columns."""
        (t, y, x), (pt, py, px) = (self.frames, self.height, self.width), self.patch
        return -(-t // pt), y // py, x // px

    @property
    def tokens(self) -> int:
        """Tokens that become the picture."""
        t, y, x = self.grid
        return t * y * x


@dataclass(frozen=True, kw_only=True, slots=True)
class Signature:
    """One way of calling a transformer, shared by the classes it is registered for."""

    inputs: Callable[[Config, Latent], dict[str, Any]]
    """Keyword arguments of one call, with a batch of one, on the default device."""
    patch: Callable[[Config], Patch]
    """Latent frames, rows and columns that make one token."""
    video: bool = False
    """True where it makes clips."""
    text: int = 512
    """Text tokens of its pipeline's longest prompt, where nobody says otherwise."""
    guided: Callable[[Config], bool] = lambda _: True
    """True where its pipeline calls it twice a step, for classifier-free guidance."""
    together: bool = False
    """True where that pipeline guides in one call of twice the batch, so that both branches decide."""


SIGNATURES: Registry[Signature] = Registry("transformer class")
